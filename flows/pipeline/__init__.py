"""One upload without Prefect: its stages, the receipt, the commit protocol, Data Docs and JSON logs."""

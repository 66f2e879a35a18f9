"""Upload processing without Prefect: stages, receipts, the commit protocol, queue draining, Data Docs and JSON logs."""

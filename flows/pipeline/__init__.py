"""Processes uploads without Prefect: the stages, the receipt, the commit protocol, the drain, Data Docs, JSON logs."""

"""Makes this process use a stack's Prefect API."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def prefect_of(environment: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, use the Prefect API that the variables in `environment` name. Setting these variables in
    the process would not be enough, because Prefect reads them when it is imported, which may have happened already."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

    settings = (PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL)
    with temporary_settings(
        {setting: environment[setting.name] for setting in settings if environment.get(setting.name)}
    ):
        yield

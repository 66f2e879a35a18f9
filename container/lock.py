"""Prints the locked Python packages that the image contains, as requirements with hashes.

    python -m container.lock

The lock files also list packages for other systems, with environment markers. The output has no markers, so that tools
that do not evaluate markers can use it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement

LOCKS = (
    Path(__file__).with_name("requirements.lock"),
    Path(__file__).parent.parent
    / "flows"
    / "contracts"
    / "requirements.lock",  # packages that the custom steps of datasets need
)
# The image's Python and system, as environment markers name them.
IN_THE_IMAGE = {
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "os_name": "posix",
}
_ENTRY = re.compile(r"^(?P<requirement>[a-z0-9][^\\\n]*)\\\n(?P<hashes>(?: +--hash=\S+(?: \\)?\n)+)", re.MULTILINE)
_HASH = re.compile(r"--hash=\S+")


def packages(
    environment: Mapping[str, str] = IN_THE_IMAGE, lock: str | None = None
) -> dict[str, tuple[str, list[str]]]:
    """Return the version and the hashes of each package to install in an environment, by package name.

    Args:
        environment: the values of environment markers; by default those of the image.
        lock: the text of a lock file; None to use the image's lock files.
    """
    found = {}
    for entry in _ENTRY.finditer("".join(path.read_text() for path in LOCKS) if lock is None else lock):
        requirement = Requirement(entry["requirement"].strip())
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            version = str(requirement.specifier).removeprefix("==")
            found[requirement.name] = (version, _HASH.findall(entry["hashes"]))
    return found


def as_requirements(wanted: Mapping[str, tuple[str, list[str]]]) -> str:
    """Return the result of `packages` as lines of a requirements file for pip."""
    return "".join(f"{name}=={version} {' '.join(hashes)}\n" for name, (version, hashes) in wanted.items())


if __name__ == "__main__":
    print(as_requirements(packages()), end="")  # noqa: T201 (a command's output)

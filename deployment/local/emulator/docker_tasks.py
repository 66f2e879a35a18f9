"""Passes a task's complete definition to a Docker engine. MiniStack passes only the image, command and environment.

The container also gets the user, the read-only root, the init process, the memory and CPU limits, the volumes and the
stop timeout. It uses the machine's network, because the AWS emulator and Prefect listen only on loopback.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ministack.services import ecs

from deployment.local.emulator.task_stop import stop_in_its_time

STATE_LABEL = "sluice.state"  # identifies the local cloud, because several may share an engine
_CPU_UNITS_PER_VCPU = 1024
_NANO_CPUS_PER_VCPU = 1_000_000_000
_ON_HOST_NETWORK = True
_LOOK_SECONDS = 0.5  # without this patch, MiniStack checks up to 30 times per second whether a task has ended


class DockerTasks:
    """Runs a local cloud's tasks in a Docker engine."""

    def __init__(self, client: Any, state: Path, region: str) -> None:
        """Patch how MiniStack runs, checks and removes containers, and remove those that an earlier run left behind.

        Args:
            client: a docker-py client without a timeout.
            state: the absolute path of the local cloud's state folder.
            region: the value of AWS_REGION, which Fargate sets.
        """
        self._client = client
        self._labels = {STATE_LABEL: str(state)}
        for container in self._containers(every=True):
            container.remove(v=True, force=True)
        register_metadata, build = ecs._register_metadata, ecs._build_run_kwargs
        remove, forward_log = ecs._remove_docker_container, ecs._start_awslogs_forwarder
        mark_stopped, last_looks = ecs._maybe_mark_stopped, dict[str, float]()

        def with_region(arn: str, cluster: str, task: Any, container: Any, kind: str, env: Any, *_: Any) -> Any:
            env.update(AWS_REGION=region, AWS_DEFAULT_REGION=region, AWS_EXECUTION_ENV="AWS_ECS_FARGATE")
            return register_metadata(arn, cluster, task, container, kind, env, _ON_HOST_NETWORK, None)

        def as_defined(container: Any, task: Any, env: Any, ports: Any, network: Any, _mode: bool, *rest: Any) -> Any:
            keywords = build(container, task, env, ports, network, _ON_HOST_NETWORK, *rest)
            keywords["labels"].update(self._labels)
            return keywords | container_options(container, task)

        def remove_in_its_time(client: Any, container_or_id: Any) -> None:
            with contextlib.suppress(Exception):  # as in MiniStack, a container that does not exist counts as removed
                by_id = isinstance(container_or_id, str)
                stop_in_its_time(client.containers.get(container_or_id) if by_id else container_or_id)
            remove(client, container_or_id)

        def mark_stopped_at_times(task: dict[str, Any], *rest: Any) -> None:
            now = time.monotonic()
            if now - last_looks.get(task["taskArn"], 0) >= _LOOK_SECONDS:
                last_looks[task["taskArn"]] = now
                mark_stopped(task, *rest)

        def forward_whole_log(container: Any, *rest: Any) -> None:
            forward_log(_WholeLog(self._client.containers.get(container.id)), *rest)

        ecs._register_metadata, ecs._build_run_kwargs = with_region, as_defined
        ecs._remove_docker_container, ecs._start_awslogs_forwarder = remove_in_its_time, forward_whole_log
        ecs._maybe_mark_stopped = mark_stopped_at_times

    def close(self, grace_seconds: float) -> None:
        """End the running tasks and remove their containers. They get SIGTERM, on which they return their messages, and
        SIGKILL after `grace_seconds`."""
        for container in self._containers():
            with contextlib.suppress(Exception):
                container.kill("SIGTERM")
        deadline = time.monotonic() + grace_seconds
        while self._containers() and time.monotonic() < deadline:
            time.sleep(0.1)
        for container in self._containers(every=True):
            with contextlib.suppress(Exception):
                container.remove(v=True, force=True)

    def _containers(self, *, every: bool = False) -> list[Any]:
        labels = [f"{name}={value}" for name, value in self._labels.items()]
        containers: list[Any] = self._client.containers.list(all=every, filters={"label": labels})
        return containers


class _WholeLog:
    """A container whose log is read in whole lines, even if nothing is written for a long time. MiniStack's own client
    has a timeout for all responses, and would stop reading such a log."""

    def __init__(self, container: Any) -> None:
        self.id = container.id
        self._container = container

    def logs(self, **options: Any) -> Iterator[bytes]:
        """Yield the lines of the log until the container ends."""
        partial = b""
        for piece in self._container.logs(**options):
            *lines, partial = (partial + piece).split(b"\n")
            yield from (line for line in lines if line)
        if partial:
            yield partial


def container_options(container: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Return the options of docker-py's `containers.run` that MiniStack does not set.

    Args:
        container: the container definition, in MiniStack's format.
        task: the task definition, with `cpu` in CPU units (1/1024 vCPU) and `memory` in MiB.
    """
    options: dict[str, Any] = {
        "user": container.get("user"),
        "read_only": bool(container.get("readonlyRootFilesystem")),
        "init": bool(_either_case(container.get("linuxParameters") or {}, "initProcessEnabled")),
        "mounts": _empty_volumes(container, task),
    }
    if memory_mib := container.get("memory") or task.get("memory"):
        # Fargate has no swap.
        options |= {"mem_limit": f"{memory_mib}m", "memswap_limit": f"{memory_mib}m"}
    if cpu_units := container.get("cpu") or task.get("cpu"):
        options["nano_cpus"] = int(cpu_units) * _NANO_CPUS_PER_VCPU // _CPU_UNITS_PER_VCPU
    return options


def _empty_volumes(container: dict[str, Any], task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the container's mounts of volumes without a host path, which are empty at first and deleted with the
    task."""
    empty = {
        _either_case(volume, "name")
        for volume in task.get("volumes") or []
        if not _either_case(_either_case(volume, "host") or {}, "sourcePath")
    }
    return [
        {"Type": "volume", "Source": None, "Target": point["containerPath"], "ReadOnly": bool(point.get("readOnly"))}
        for point in container.get("mountPoints") or []
        if point.get("sourceVolume") in empty
    ]


def _either_case(mapping: dict[str, Any], name: str) -> Any:
    """Return the value for a camelCase name, as in ECS's API, or for the same name capitalized, as in
    CloudFormation."""
    return mapping.get(name, mapping.get(name[:1].upper() + name[1:]))

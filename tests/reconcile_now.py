"""Runs the flow `reconcile` without its grace period.

python -m tests.reconcile_now PREFIX
"""

from __future__ import annotations

import sys

from flows.reconcile import reconcile

if __name__ == "__main__":
    reconcile(grace_minutes=0, prefix=sys.argv[1])

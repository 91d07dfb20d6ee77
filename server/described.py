"""What a task is, for its pages: the part of its status that never changes."""

from typing import Any

from kbdfl.algorithms.mode import FedBuff
from kbdfl.secure import fewest, statement
from kbdfl.task import Task


def described(task: Task) -> dict[str, Any]:
    """The model, the rule of rounds and secure aggregation, as JSON objects."""
    config, rule, mode = task.config, task.rule, task.algorithm.mode
    return {
        "model": {
            "vocabulary": config.vocab,
            "embedding": config.embed,
            "cells": config.hidden,
            "parameters": config.spec.size,
            "spec": config.spec.hash,
            "vocabulary_sha256": task.vocabulary_sha256,
        },
        "rule": {
            "cohort": rule.cohort,
            "over_selection": rule.over_selection,
            "min_reports": rule.min_reports,
            "deadline_s": rule.deadline_s,
            "concurrency": mode.concurrency if isinstance(mode, FedBuff) else None,
        },
        "secure": _secure(task),
    }


def _secure(task: Task) -> dict[str, Any] | None:
    """Of a task whose updates are summed unseen; None of others."""
    if not task.algorithm.secure.on:
        return None
    noised = task.algorithm.privacy.on_devices
    return {
        "fewest": fewest(task),
        "noised": noised,
        "sentence": None if noised else statement(task),  # what is said of privacy says it too
    }

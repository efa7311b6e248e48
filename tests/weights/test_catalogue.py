"""What is told of tasks follows from the one table of them, and the table agrees with itself."""

from collections import Counter
from dataclasses import replace

import pytest

from openscans.errors import UnknownTask, UnsupportedModality
from openscans.segmentation.vertebrae import vertebra_names
from openscans.types import HEAD_TO_FOOT
from openscans.weights import catalogue
from openscans.weights.catalogue import TASKS


def test_every_dataset_belongs_to_one_task() -> None:
    owned = Counter(dataset.number for task in TASKS.values() for dataset in task.datasets)
    assert set(owned.values()) == {1}
    assert {dataset.number for task in TASKS.values() for dataset in task.opened} == set(owned)


def test_a_task_is_brought_and_deleted_with_its_own_datasets_in_order() -> None:
    numbers = {key: [dataset.number for dataset in task.datasets] for key, task in TASKS.items()}
    assert numbers.items() >= {"vertebrae": [292], "total_body": [298, 297], "vertebrae_mr": [756]}.items()


def test_a_task_needs_the_owner_of_its_localiser() -> None:
    assert TASKS["vertebrae"].needs == ("total_body",)
    assert TASKS["total_body"].needs == TASKS["vertebrae_mr"].needs == ()
    assert "vertebrae" in catalogue.needing(TASKS["total_body"])


@pytest.mark.parametrize("order", [range(1, 8), range(7, 0, -1)])
def test_vertebrae_are_named_from_head_to_foot_whatever_their_numbers(order: range) -> None:
    labels = dict(
        zip(order, ("vertebrae_C1", "vertebrae_C7", "vertebrae_T13", "vertebrae_L6", "vertebrae_S1"), strict=False)
    )
    assert catalogue.head_to_foot(labels) == ("C1", "C7", "T13", "L6", "S1")


def test_what_is_no_vertebra_keeps_its_place() -> None:
    labels = {1: "spleen", 2: "sacrum", 3: "vertebrae_L5", 4: "heart"}
    assert catalogue.head_to_foot(labels) == ("heart", "L5", "sacrum", "spleen")
    assert catalogue.head_to_foot({1: "spleen", 2: "vertebrae_L5", 3: "sacrum", 4: "heart"}) == (
        "heart",
        "L5",
        "sacrum",
        "spleen",
    )


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_structures_hold_every_vertebra_in_anatomical_order(task: catalogue.Task) -> None:
    found = list(vertebra_names(dict(enumerate(task.structures))).values())
    assert found == sorted(found, key=HEAD_TO_FOOT.index)
    assert found[0] == "C1"


def test_the_modality_chooses_the_first_task_of_its_own() -> None:
    chosen = [catalogue.task_for(modality).key for modality in ("CT", "MR", None)]
    assert chosen == ["vertebrae", "vertebrae_mr", "vertebrae"]
    with pytest.raises(UnsupportedModality):
        catalogue.task_for("PT")


def test_a_ct_task_without_a_fast_form_does_not_deny_that_of_others() -> None:
    slow = replace(TASKS["vertebrae"], key="slow", fast=None)
    task, [warning] = catalogue.fast_form(slow)
    assert task is slow
    assert warning.message == "The model slow has no fast form; the full one was used."


def test_an_unknown_task_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(UnknownTask) as refused:
        catalogue.task_of("lungs")
    *first, last = TASKS
    assert refused.value.hint == f"The tasks are {', '.join(first)} and {last}."

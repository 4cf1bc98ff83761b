"""Update masks."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from moln.common.v1.common_pb2 import Cause
from moln.image.v1.image_pb2 import ImageSpec
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.resources.update_mask import apply_mask

ALLOWED = ("labels", "description", "is_public", "cause")


def change(source: ImageSpec, *paths: str) -> ImageSpec:
    target = ImageSpec(name="a", description="old", labels={"x": "1", "y": "2"}, cause=Cause(actor="ann", reason="r"))
    return apply_mask(target, source, FieldMask(paths=paths), ALLOWED)


def refusal(*paths: str) -> MolnError:
    with pytest.raises(MolnError) as caught:
        change(ImageSpec(), *paths)
    assert caught.value.fields[0][0] == "update_mask"
    return caught.value


def test_only_masked_fields_are_changed() -> None:
    changed = change(ImageSpec(name="b", description="new", labels={"z": "3"}), "description")
    assert (changed.name, changed.description, dict(changed.labels)) == ("a", "new", {"x": "1", "y": "2"})


def test_a_map_is_replaced_whole() -> None:
    assert dict(change(ImageSpec(labels={"z": "3"}), "labels").labels) == {"z": "3"}


def test_a_masked_field_that_is_empty_becomes_empty() -> None:
    changed = change(ImageSpec(), "description", "labels")
    assert (changed.description, dict(changed.labels)) == ("", {})


def test_a_path_within_an_allowed_field_changes_that_alone() -> None:
    changed = change(ImageSpec(cause=Cause(actor="bo", reason="other")), "cause.actor")
    assert (changed.cause.actor, changed.cause.reason) == ("bo", "r")


def test_a_star_is_everything_that_may_change() -> None:
    changed = change(ImageSpec(name="b", is_public=True), "*")
    assert (changed.name, changed.is_public, changed.description) == ("a", True, "")


def test_the_target_itself_is_left_as_it_was() -> None:
    target = ImageSpec(description="old")
    apply_mask(target, ImageSpec(description="new"), FieldMask(paths=["description"]), ALLOWED)
    assert target.description == "old"


def test_a_field_that_may_not_change_is_refused_by_name() -> None:
    error = refusal("name")
    assert error.reason is Reason.FIELD_IMMUTABLE
    assert "'name'" in error.message


def test_a_field_that_is_not_there_is_refused() -> None:
    assert refusal("nmae").reason is Reason.FIELD_INVALID
    assert refusal("labels.x").reason is Reason.FIELD_INVALID


def test_an_empty_mask_is_refused() -> None:
    assert refusal().reason is Reason.FIELD_REQUIRED

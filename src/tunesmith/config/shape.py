"""What the schema expects at a dotted key, read off the schema itself so that there is no second list of settings."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from tunesmith.config.read import Node
from tunesmith.config.schema import RunConfig, Section


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at one key."""

    sections: tuple[type[Section], ...] = ()
    """The alternatives, when a section stands there."""
    word: str | None = None
    """The key that tells the alternatives apart: `name`, `method`, `format`."""
    shorthand: Callable[[Any], Any] | None = None
    """Turns the short form (`task: sql`) into the section (`{name: sql}`)."""
    items: Any = None
    """Annotation of the values, where a mapping by free names or a list stands there."""
    named: bool = False
    """Whether those values have names."""
    kinds: tuple[Any, ...] = ()
    """The plain types that may stand there."""

    @property
    def chosen_names(self) -> bool:
        """Whether a mapping stands here whose names the user chooses and whose values we know: databases, test sets."""
        return self.named and self.items is not Any

    def fitting(self, node: Node | None) -> tuple[type[Section], ...]:
        """The alternatives that the word written in `node` leaves open."""
        chosen = node.child(self.word) if node is not None and self.word else None
        if chosen is None or self.word is None:
            return self.sections
        return tuple(s for s in self.sections if chosen.value in get_args(s.model_fields[self.word].annotation))

    def child(self, key: str | int, node: Node | None = None) -> Shape:
        """What may stand one level below, given what is written here."""
        for section in self.fitting(node):
            if str(key) in section.model_fields:
                return shape_of_field(section.model_fields[str(key)])
        return shape_of(self.items) if self.items is not None else Shape()


def shape_of_field(field: FieldInfo) -> Shape:
    """The shape of a section's field."""
    shape = _with_metadata(shape_of(field.annotation), field.metadata)
    return replace(shape, word=str(field.discriminator)) if field.discriminator else shape


def shape_of(annotation: Any) -> Shape:
    """The shape of a type annotation."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return _with_metadata(shape_of(inner), metadata)
    if origin in (Union, types.UnionType):
        return _joined([shape_of(argument) for argument in get_args(annotation)])
    if origin is dict:
        return Shape(items=get_args(annotation)[1], named=True)
    if origin is list:
        return Shape(items=get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape(sections=(annotation,))
    return Shape(kinds=get_args(annotation) if origin is Literal else (annotation,))


ROOT = shape_of(RunConfig)


def known_keys() -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted key, last part, condition): `("task.build", "build", "task.name: sql")`."""
    yield from _known(ROOT, "", "")


def leaves(value: Any, key: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every leaf of a config with its key. A list of plain values is one leaf, an empty mapping too."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from leaves(getattr(value, name), (*key, name))
    elif isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(item, (*key, name))
    elif isinstance(value, list) and any(isinstance(item, (BaseModel, dict)) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, (*key, index))
    else:
        yield key, value


def dotted(key: tuple[str | int, ...]) -> str:
    """The key as people write it."""
    return ".".join(str(part) for part in key)


def _with_metadata(shape: Shape, metadata: Any) -> Shape:
    for item in metadata:
        if isinstance(item, BeforeValidator):
            shape = replace(shape, shorthand=cast(Callable[[Any], Any], item.func))
        elif isinstance(item, FieldInfo) and item.discriminator:
            shape = replace(shape, word=str(item.discriminator))
    return shape


def _joined(shapes: list[Shape]) -> Shape:
    return Shape(
        sections=tuple(section for shape in shapes for section in shape.sections),
        word=next((shape.word for shape in shapes if shape.word), None),
        shorthand=next((shape.shorthand for shape in shapes if shape.shorthand), None),
        items=next((shape.items for shape in shapes if shape.items is not None), None),
        named=any(shape.named for shape in shapes),
        kinds=tuple(kind for shape in shapes for kind in shape.kinds),
    )


def _known(shape: Shape, prefix: str, condition: str) -> Iterator[tuple[str, str, str]]:
    for section in shape.sections:
        if shape.word and len(shape.sections) > 1:
            condition = f"{prefix}{shape.word}: {get_args(section.model_fields[shape.word].annotation)[0]}"
        for name, field in section.model_fields.items():
            yield f"{prefix}{name}", name, condition
            yield from _known(shape_of_field(field), f"{prefix}{name}.", condition)

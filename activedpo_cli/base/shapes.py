"""Tensor shapes as types, `Float[Tensor, "n d"]`: jaxtyping's where it is installed, else the plain tensor type.

Only tests check shapes, so where jaxtyping is missing nothing but the annotation itself is lost.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Int as Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class _AnyShape:
            """What `Float[Tensor, "n d"]` is without jaxtyping: `Tensor`."""

            def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
                return array_and_shape[0]

        Bool = Float = Int = _AnyShape

__all__ = ["Bool", "Float", "Int"]

"""Linear shape models: a mean mesh plus weighted offsets, such as morphable face models and body shape spaces."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh

GAUSSIAN_LIMIT = 5.0
"""Largest coefficient of a component with a standard deviation, in standard deviations."""


class LinearShapeModel(TensorStruct):
    """A mesh that deforms linearly: mean + Σ aᵢ sᵢ Iᵢ + Σ bⱼ tⱼ Eⱼ (Blanz and Vetter 1999, eq. 1).

    Identity components I describe individuals, with coefficients a that are standard normal. Expression components E
    describe what changes from frame to frame. Their coefficients b are in [0, 1] (blend shapes), or standard normal if
    the model has standard deviations t. Offsets are in the units of the mean.
    """

    mean: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    identity: Float[Tensor, "identities vertices 3"]
    """Offsets of the identity components; may be empty."""
    expression: Float[Tensor, "expressions vertices 3"]
    """Offsets of the expression components; may be empty."""
    identity_std: Float[Tensor, " identities"]
    """Standard deviations of the identity components."""
    expression_std: Float[Tensor, " expressions"] | None = None
    """Standard deviations of the expression components. None: their coefficients are in [0, 1]."""
    expression_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        Mesh(self.mean, self.faces)
        if self.expression_names and len(self.expression_names) != len(self.expression):
            raise InputError(
                f"LinearShapeModel: `expression_names` should have {len(self.expression)} names, got "
                f"{len(self.expression_names)}"
            )
        if len(set(self.expression_names)) < len(self.expression_names):
            raise InputError("LinearShapeModel: `expression_names` should be different names")
        for name in ("identity_std", "expression_std"):
            std = getattr(self, name)
            if std is not None and not bool((std.isfinite() & (std > 0)).all()):
                raise InputError(f"LinearShapeModel: `{name}` should be positive and finite")

    @property
    def num_coefficients(self) -> int:
        """Number of identity and expression coefficients together."""
        return len(self.identity) + len(self.expression)


def linear_shape_offsets(model: LinearShapeModel) -> Float[Tensor, "coefficients vertices 3"]:
    """Return the offsets per unit of each coefficient, those of the identity first."""
    identity = model.identity * model.identity_std[:, None, None]
    expression = model.expression
    if model.expression_std is not None:
        expression = expression * model.expression_std[:, None, None]
    return torch.cat([identity, expression])


def linear_shape(
    model: LinearShapeModel,
    identity: Float[Tensor, "*batch identities"] | None = None,
    expression: Float[Tensor, "*batch expressions"] | None = None,
) -> Mesh:
    """Return the mesh of a linear model with the given coefficients; those that are missing are 0.

    Fewer coefficients than components are those of the first components.

    Example: `linear_shape(model, expression=torch.full((56,), 0.2))`; optimize the coefficients through
    `render_silhouette` or `render_depth` to fit photos.
    Differentiable in: the coefficients and the arrays of the model.
    """
    shape = model.mean
    for name, given, offsets, std in (
        ("identity", identity, model.identity, model.identity_std),
        ("expression", expression, model.expression, model.expression_std),
    ):
        if given is None:
            continue
        if given.dim() == 0 or given.shape[-1] > len(offsets):
            raise InputError(
                f"linear_shape: `{name}` should have at most {len(offsets)} coefficients in its last axis, got "
                f"{describe_value(given)}"
            )
        count = given.shape[-1]
        weights = given if std is None else given * std[:count]
        shape = shape + torch.tensordot(weights, offsets[:count], 1)
    return Mesh(shape, model.faces)


def coefficient_bounds(model: LinearShapeModel) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value of each coefficient, those of the identity first."""
    high = model.mean.new_full((model.num_coefficients,), GAUSSIAN_LIMIT)
    low = -high
    if model.expression_std is None:
        low[len(model.identity) :], high[len(model.identity) :] = 0.0, 1.0
    return low, high

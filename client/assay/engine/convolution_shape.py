"""The shape of a two-dimensional convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay.errors import AssayError


class ConvolutionError(AssayError):
    """Shapes or arrays that do not make a convolution."""

    code: ClassVar[str] = "convolution"


@dataclass(frozen=True)
class Convolution:
    """A convolution of x (batch, in_channels, height, width) with w (out_channels, in_channels / groups, *kernel)."""

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        sizes = (self.batch, self.in_channels, self.height, self.width, self.out_channels, self.groups)
        if min(*sizes, *self.kernel, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise ConvolutionError(f"every size of {self} must be at least 1, and the padding at least 0")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ConvolutionError(
                f"{self.in_channels} input or {self.out_channels} output channels do not divide by groups={self.groups}"
            )
        if min(self.out_height, self.out_width) < 1:
            raise ConvolutionError(f"the kernel of {self} is larger than the padded image: enlarge the padding")

    def _out(self, axis: int, size: int) -> int:
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - span) // self.stride[axis] + 1

    @property
    def out_height(self) -> int:
        """Rows of y."""
        return self._out(0, self.height)

    @property
    def out_width(self) -> int:
        """Columns of y."""
        return self._out(1, self.width)

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of x and dx."""
        return self.batch, self.in_channels, self.height, self.width

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        """Shape of w and dw."""
        return self.out_channels, self.in_channels // self.groups, *self.kernel

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of y and dy."""
        return self.batch, self.out_channels, self.out_height, self.out_width

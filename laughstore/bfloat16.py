"""`bfloat16` for zarr-python: registers the extension name of the zarr-extensions registry.

zarr-python 3.4 has no bfloat16 of its own, TensorStore and zarrs do, under this name. Importing
this module is enough; an entry point does it too for readers that import only zarr.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeGuard

import ml_dtypes
import numpy as np

# HasEndianness is what makes the `bytes` codec write its byte order; not exported by zarr.dtype.
from zarr.core.dtype.common import HasEndianness, HasItemSize
from zarr.dtype import ZDType, data_type_registry
from zarr.errors import DataTypeValidationError

BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)  # Any: ml_dtypes has no numpy scalar type
_NAME = "bfloat16"
_FROM_JSON = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass(frozen=True, kw_only=True)
class BFloat16(ZDType[Any, Any], HasEndianness, HasItemSize):
    """Zarr v3 data type of 16-bit brain floats (ml_dtypes.bfloat16), either byte order."""

    dtype_cls = type(BFLOAT16)  # pyright: ignore[reportAssignmentType]  (numpy's dtype subclass)
    _zarr_v3_name: ClassVar[Literal["bfloat16"]] = _NAME
    item_size: ClassVar[int] = BFLOAT16.itemsize  # pyright: ignore[reportIncompatibleMethodOverride]

    @classmethod
    def from_native_dtype(cls, dtype: np.dtype[Any]) -> Self:
        """Return the Zarr type of a numpy dtype that is bfloat16."""
        if not cls._check_native_dtype(dtype):
            raise DataTypeValidationError(f"{dtype} is not bfloat16")
        return cls(endianness="big" if dtype.byteorder == ">" else "little")

    def to_native_dtype(self) -> np.dtype[Any]:
        """Return ml_dtypes.bfloat16 in this byte order."""
        return BFLOAT16.newbyteorder(">") if self.endianness == "big" else BFLOAT16

    @classmethod
    def _check_json_v2(cls, data: object) -> TypeGuard[Any]:
        return False

    @classmethod
    def _check_json_v3(cls, data: object) -> TypeGuard[Any]:
        if isinstance(data, Mapping):
            return data.get("name") == _NAME and not data.get("configuration")
        return data == _NAME

    @classmethod
    def _from_json_v2(cls, data: object) -> Self:
        raise DataTypeValidationError("bfloat16 exists in Zarr version 3 only")

    @classmethod
    def _from_json_v3(cls, data: object) -> Self:
        if cls._check_json_v3(data):
            return cls()
        raise DataTypeValidationError(f"{data!r} is not bfloat16")

    def to_json(self, zarr_format: Literal[2, 3]) -> Any:
        """Return the type's name in Zarr metadata."""
        if zarr_format != 3:
            raise ValueError("bfloat16 exists in Zarr version 3 only")
        return _NAME

    def _check_scalar(self, data: object) -> TypeGuard[Any]:
        return isinstance(data, int | float | np.floating | np.integer | ml_dtypes.bfloat16)

    def cast_scalar(self, data: object) -> Any:
        """Return a number as a bfloat16 scalar."""
        if not self._check_scalar(data):
            raise TypeError(f"cannot make a bfloat16 of {data!r}")
        return ml_dtypes.bfloat16(data)

    def default_scalar(self) -> Any:
        """Return 0, the fill value of arrays that name none."""
        return ml_dtypes.bfloat16(0)

    def to_json_scalar(self, data: object, *, zarr_format: Literal[2, 3]) -> float | str:
        """Return a scalar as Zarr metadata writes it."""
        value = float(self.cast_scalar(data))
        if np.isfinite(value):
            return value
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def from_json_scalar(self, data: object, *, zarr_format: Literal[2, 3]) -> Any:
        """Return the scalar that Zarr metadata holds: a number, a name or hex bits `0x7fc0`."""
        if isinstance(data, str):
            if data.startswith("0x"):
                return np.array(int(data, 16), np.uint16).view(BFLOAT16)[()]
            if data not in _FROM_JSON:
                raise TypeError(f"cannot make a bfloat16 of {data!r}")
            return ml_dtypes.bfloat16(_FROM_JSON[data])
        return self.cast_scalar(data)


data_type_registry.register(_NAME, BFloat16)  # pyright: ignore[reportArgumentType]

"""Rows of the paper's ablation table (Table 3)."""

from idif.methods.idif.config import IDIFConfig


def table_3_row(method: IDIFConfig) -> str | None:
    """The row of the paper's Table 3 that matches a method's settings; None if none of the four does."""
    parts = (method.fusion, method.bottleneck, method.encoder)
    return {
        ("none", False, "per-view"): "dkd",
        ("conv3d", False, "shared"): "dkd+3dconv",
        ("ivc", False, "shared"): "dkd+ivc",
        ("ivc", True, "shared"): "dkd+ivc+cb",
    }.get(parts)

"""Rows of the paper's ablation table (Table 3)."""

from idif.methods.idif.config import IDIFConfig

DKD_STAGES, DKD_BLOCKS = 4, 2
"""Encoder stages and decoder blocks of the row ``dkd``, whose student is DeSTSeg's."""


def table_3_row(method: IDIFConfig) -> str | None:
    """The row of the paper's Table 3 that matches a method's settings; None if none of the four does.

    A ``dkd`` with another student than the paper's is named with what differs, and so is not that row. The
    paper's rows all have the segmentation head, which comparisons show for each run in a column of its own.
    """
    parts = (method.fusion, method.bottleneck, method.encoder)
    row = {
        ("none", False, "per-view"): "dkd",
        ("conv3d", False, "shared"): "dkd+3dconv",
        ("ivc", False, "shared"): "dkd+ivc",
        ("ivc", True, "shared"): "dkd+ivc+cb",
    }.get(parts)
    if row != "dkd":
        return row
    own, papers = (method.encoder_stages, method.decoder_blocks), (DKD_STAGES, DKD_BLOCKS)
    return row if own == papers else f"{row} (encoder_stages {own[0]}, decoder_blocks {own[1]})"

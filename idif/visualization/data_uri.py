"""Images as data URIs, so that a page holds its images itself."""

import base64
import io

from PIL import Image

from idif.visualization.heatmap import Pixels


def webp_data_uri(image: Pixels, quality: int = 82) -> str:
    """uint8 [H,W,3], RGB, as a data URI of WebP; ``quality`` 0..100."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

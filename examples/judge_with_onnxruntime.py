"""Score one part with a file that `idif export` wrote; needs only onnxruntime, numpy and Pillow.

python judge_with_onnxruntime.py audiojack.onnx C1.jpg C2.jpg - C4.jpg C5.jpg      (-: missing view)
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
size, cameras = metadata["image_size"], metadata["views"]

images = np.zeros((1, len(cameras), 3, size, size), np.uint8)
present = np.zeros((1, len(cameras)), np.bool_)
for slot, path in enumerate(sys.argv[2:]):
    if path != "-":
        photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")  # as the camera was held
        photo = photo.resize((size, size), Image.Resampling.BILINEAR)
        images[0, slot] = np.asarray(photo).transpose(2, 0, 1)
        present[0, slot] = True

maps, view_scores, scores = session.run(None, {"images": images, "view_mask": present})
threshold = metadata["thresholds"]["sample"]
result = {
    "score": float(scores[0]),
    "anomalous": None if threshold is None else float(scores[0]) >= threshold,
    "views": {c: float(s) for c, s, given in zip(cameras, view_scores[0], present[0], strict=True) if given},
}
print(json.dumps(result))
np.save("maps.npy", maps[0])

"""How the face detector's boxes lie in the pictures of FER2013, by which `predict --faces` cuts photographs.

    python tests/benchmarks/bench_face_boxes.py fer2013.csv [--num 800]

Each picture of PublicTest is enlarged four times and framed by its edge, since the detector wants a face of 80 pixels.
"""

import argparse

import dlib
import numpy as np
from PIL import Image

from fer_search.data.fer2013 import load_faces

SCALE, FRAME = 4, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--num", type=int, default=800)
    arguments = parser.parse_args()
    pixels = load_faces(arguments.data).where("PublicTest").pixels
    chosen = np.random.default_rng(0).permutation(len(pixels))[: arguments.num]
    detect, found = dlib.get_frontal_face_detector(), []
    for picture in pixels[chosen]:
        side = SCALE * len(picture)
        large = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))
        boxes = detect(np.pad(large, FRAME, mode="edge"), 0)
        if len(boxes) == 1:
            box = boxes[0]
            middle = (box.top() + box.bottom()) / 2 - FRAME
            found.append((box.width() / side, middle / side))
    widths, middles = np.array(found).T
    print(f"one face found in {len(found)} of {len(chosen)} pictures")
    print(f"side of the picture over that of the box: {1 / widths.mean():.2f}")
    print(f"how far the box's middle is below the picture's, of its side: {middles.mean() - 0.5:.3f}")


if __name__ == "__main__":
    main()

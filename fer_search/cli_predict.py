"""The command that names the expressions of faces in pictures."""

from pathlib import Path
from typing import Annotated

import typer

from fer_search.cli_options import JsonOption
from fer_search.printing import print_json, print_table
from fer_search.report import predictions_table
from fer_search.terminal import err


def predict(
    bundle: Annotated[Path, typer.Argument(help="The directory that export wrote.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders with all that is below them, or - for an image on stdin.")
    ],
    faces: Annotated[
        bool,
        typer.Option("--faces", help="Look for faces in whole photographs (needs `pip install 'fer-search[photos]'`)."),
    ] = False,
    annotated: Annotated[
        Path | None,
        typer.Option(
            "--annotate",
            metavar="PATH",
            help="Draw the predictions on a copy of each picture: a folder, or for one picture a file.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the emotion of each face; needs no torch.

    A picture is cut square around its centre; with `--faces` each face that is found is cut out instead, and a picture
    without one is a row that says so.

    Examples:

    - `fer-search predict runs/first/bundle faces/`
    - `fer-search predict runs/first/bundle party.jpg --faces --annotate marked.jpg`
    - `curl -s URL | fer-search predict runs/first/bundle - --json`
    """
    from fer_search.annotation import annotation_paths
    from fer_search.face_detector import FaceDetector
    from fer_search.pictures import find_pictures
    from fer_search.predict import Predictor, draw_predictions, predict_pictures

    predictor = Predictor(bundle)
    detector = FaceDetector() if faces else None
    sources = find_pictures(images)
    copies = annotation_paths(sources, annotated) if annotated else []
    predictions = predict_pictures(predictor, sources, detector=detector)
    if annotated:
        draw_predictions(predictions, dict(zip(sources, copies, strict=True)))
        err.print(f"annotated: {annotated}", markup=False, soft_wrap=True)
    if as_json:
        print_json([prediction.as_row(with_box=faces) for prediction in predictions])
        return
    print_table(predictions_table(predictions, with_box=faces))

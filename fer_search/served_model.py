"""A bundle as an MLflow model: image files in, an emotion and the probability of each out.

MLflow loads this module by its name, with a copy of this package that is stored with the model, wherever it serves it;
so it needs what `predict` needs, and neither torch nor an installed fer_search.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from fer_search.errors import InvalidInput
from fer_search.pictures import Source, centre_square, cut_face, open_picture
from fer_search.predict import Predictor

COLUMN = "image"
EMOTION = "emotion"


class ServedModel:
    """What MLflow calls: a table with the content of an image file in each row of `image`."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, images: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Return for each image its emotion, and a column of probabilities for each; raises MlflowException if bad."""
        probabilities = self.predictor.predict(np.stack([self._face(each) for each in images[COLUMN]]))
        found = pd.DataFrame(probabilities.astype(float), columns=list(self.predictor.classes))
        found.insert(0, EMOTION, [self.predictor.classes[index] for index in probabilities.argmax(1)])
        return found

    def _face(self, content: bytes) -> NDArray[np.uint8]:
        try:
            picture = open_picture(Source(Path(COLUMN), COLUMN, content))
        except InvalidInput as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        picture = picture.convert("L" if self.predictor.channels == 1 else "RGB")
        return cut_face(picture, centre_square(picture), size=self.predictor.image_size)


def _load_pyfunc(data_path: str) -> ServedModel:
    """Return the model of a bundle; the name is MLflow's."""
    return ServedModel(Predictor(Path(data_path)))

"""Features of a folder, and a classifier on them: python examples/extract_and_classify.py DATA

Extracts one layer of all pictures below DATA, fits a logistic regression to those of DATA/train, whose strength of
regularisation is chosen by cross-validation, and scores it on DATA/test. Then it puts the network in front: one
pipeline from picture files to classes. Stopped and started again, the extraction goes on where it was.
"""

import argparse
import pickle
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from vggtransfer import VGGFeatures, extract, load_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--arch", default="vgg16_bn_x0_25")
    parser.add_argument("--layer", default="relu5_3")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--out", type=Path, default=Path("features"))
    options = parser.parse_args()

    extract(options.data, out=options.out, layers=[options.layer], arch=options.arch, image_size=options.image_size)
    found = load_features(options.out)
    rows = found.features[options.layer]
    splits = np.array([path.split("/")[0] for path in found.paths])
    train, test = splits == "train", splits == "test"

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(model, {"logisticregression__C": np.logspace(-4, 0, 5)}, cv=3)
    with threadpool_limits(limits=1):  # on matrices as small as these, threads mostly wait for each other
        search.fit(rows[train], found.labels[train])
        accuracy = search.score(rows[test], found.labels[test])
    print(f"{train.sum()} training and {test.sum()} test pictures: test accuracy {accuracy:.1%}")

    features = VGGFeatures(options.arch, layer=options.layer, image_size=options.image_size)
    classifier = make_pipeline(features, search.best_estimator_)
    paths = [options.data / path for path, chosen in zip(found.paths, test, strict=True) if chosen][:4]
    for path, label in zip(paths, classifier.predict(paths), strict=True):
        print(f"{path.relative_to(options.data)} is a {label}")
    print(f"the whole classifier pickles to {len(pickle.dumps(classifier)):,} bytes")


if __name__ == "__main__":
    main()

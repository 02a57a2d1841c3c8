"""What plain classifiers reach on the intent test lines, in seconds: `baselines.py --data DIR`."""

import argparse
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from rows import Row, load_tables


def linear_svm():
    """Linear SVM over word and character n-grams."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(make_union(words, characters), LinearSVC(C=1.0))


def unigram_regression():
    """Logistic regression over single words."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=30.0, max_iter=100))


def test_accuracy(model, train: list[Row], test: list[Row]) -> float:
    model.fit([row.prompt for row in train], [row.answer for row in train])
    written = model.predict([row.prompt for row in test])
    return float(np.mean([label == row.answer for label, row in zip(written, test)]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    tables = load_tables(arguments.parse_args().data)
    train = tables.intent["train"] + tables.intent["oos_train"]
    for name, model in (
        ("linear SVM, words and character n-grams", linear_svm()),
        ("logistic regression, words", unigram_regression()),
    ):
        accuracy = test_accuracy(model, train, tables.intent["test"])
        print(f"{name}: in scope {accuracy:.2%} of {len(tables.intent['test'])} test lines", flush=True)


if __name__ == "__main__":
    main()

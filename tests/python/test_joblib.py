"""joblib and scikit-learn on the farm."""

import subprocess
import sys
import warnings

import grange  # noqa: F401
import pytest

joblib = pytest.importorskip("joblib")


def test_the_name_is_known_whichever_is_imported_first(server):
    for imports in (
        "import grange, joblib",
        "import joblib, grange",
        "import grange; from joblib import Parallel; import joblib",
    ):
        code = (
            f"{imports}\nassert 'sklearn' not in __import__('sys').modules\n"
            "with joblib.parallel_config(backend='grange'):\n"
            "    print(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(3)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**_environ(), "GRANGE_URL": server.url},
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.stdout == "[0, 1, 2]\n", done.stderr


def test_grange_does_not_import_joblib():
    code = "import grange, sys; print('joblib' in sys.modules, 'google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


def test_parallel(default_url):
    with joblib.parallel_config(backend="grange"):
        assert joblib.Parallel(n_jobs=-1)(joblib.delayed(pow)(i, 2) for i in range(200)) == [i * i for i in range(200)]


def test_parallel_as_a_generator(default_url):
    with joblib.parallel_config(backend="grange"):
        results = joblib.Parallel(n_jobs=2, return_as="generator")(joblib.delayed(pow)(i, 2) for i in range(20))
        assert list(results) == [i * i for i in range(20)]


def test_exceptions(default_url):
    def fail(i):
        if i == 3:
            raise KeyError("three")

    with joblib.parallel_config(backend="grange"), pytest.raises(KeyError):
        joblib.Parallel(n_jobs=2)(joblib.delayed(fail)(i) for i in range(10))


def test_nested(default_url):
    def inner(i):
        return i * 2

    def outer(i):
        return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(inner)(j) for j in range(i)))

    with joblib.parallel_config(backend="grange"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(outer)(i) for i in range(6)) == [i * (i - 1) for i in range(6)]


def test_grid_search(default_url):
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    x, y = x[:400], y[:400]
    found = {}
    for backend in ("threading", "grange"):
        search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.0001, 0.001, 0.01]}, cv=3, n_jobs=2)
        with joblib.parallel_config(backend=backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search.fit(x, y)
        found[backend] = (search.best_params_, search.best_score_, search.cv_results_["mean_test_score"].tolist())
    assert found["grange"] == found["threading"]


def _environ():
    import os

    return dict(os.environ)

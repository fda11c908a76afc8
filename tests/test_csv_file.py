"""Tables as text: what is a header, which column is the label, and what is wrong in which line and column."""

import numpy as np
import pytest

from sparse_jax.data import catalog, splits
from sparse_jax.errors import UserError

ROWS = 20  # the test part is 4


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


def rows(labels, before=0):
    """Rows whose features are i and −i/2, with label i mod len(labels) after so many features."""
    cells = [[str(i), str(-i / 2)] for i in range(ROWS)]
    for i, row in enumerate(cells):
        row.insert(before, labels[i % len(labels)])
    return [",".join(row) for row in cells]


def together(arrays):
    """Features and labels of train and test by the first feature, which counts the rows."""
    x = np.concatenate([arrays.x_train, arrays.x_test])
    order = np.argsort(x[:, 0])
    return x[order], np.concatenate([arrays.y_train, arrays.y_test])[order]


LAYOUTS = {  # lines of the file -> the class of row 0, 1, ... where they repeat
    "numbers, no header": (rows(["0", "1"], 2), [0, 1]),
    "a header without the label": (["a,b,c", *rows(["0", "1"], 2)], [0, 1]),
    "label in the middle": (["a,Label,c", *rows(["1", "0"], 1)], [1, 0]),
    "class at the beginning": ([" CLASS ,a,b", *rows(["n", "y"])], [0, 1]),
    "target": (["target,a,b", *rows(["n", "y"])], [0, 1]),
    "y at the beginning": (["y,a,b", *rows(["n", "y"])], [0, 1]),
    "y at the end": (["a,b,Y", *rows(["n", "y"], 2)], [0, 1]),
    "y as a coordinate": (["x,y,cluster", *rows(["1", "0"], 2)], [1, 0]),
    "y as a coordinate beside the label": (["class,y,x", *rows(["1", "0"])], [1, 0]),
    "numbered columns beside the label": (["0,label,1", *rows(["p", "q"], 1)], [0, 1]),
    "text that holds a label's name": (rows(["n", "y"], 2), [0, 1]),
    "numbers in their order": (rows(["10", "9", "-1"], 2), [2, 1, 0]),
    "equal numbers written in two ways": (rows(["1", "0", "1.0"], 2), [1, 0, 1]),
    "text in its order": (rows(["10", "9", "b"], 2), [0, 1, 2]),
    "spaces and quotes": (['"a, b", "c" , label ', *[row.replace(",", " , ") for row in rows(["p", "q"], 2)]], [0, 1]),
    "blank lines": ("\n\n".join(["", *rows(["0", "1"], 2), ""]).split("\n"), [0, 1]),
    "lines of spaces": ("\n \t\n".join([" ", *rows(["0", "1"], 2), " "]).split("\n"), [0, 1]),
    "labels with an underscore": (rows(["1_0", "1"], 2), [1, 0]),
}


@pytest.mark.parametrize(("lines", "classes"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_table_is_read(tmp_path, lines, classes, ending):
    arrays = catalog.load(write(tmp_path, ending.join(lines)), "ignored")
    x, y = together(arrays)
    i = np.arange(ROWS)
    assert np.array_equal(x, np.stack([i, -i / 2], axis=1))
    assert y.tolist() == [classes[row % len(classes)] for row in i]
    assert (arrays.x_train.dtype, arrays.y_train.dtype) == (np.float32, np.int32)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    arrays = catalog.load(write(tmp_path, "\n".join(["label,a,b", *rows(["p", "q"])]), "utf-8-sig"), "")
    assert np.array_equal(together(arrays)[0][:, 0], np.arange(ROWS))


def test_the_test_part_is_the_fixed_stratified_fifth(tmp_path):
    path = write(tmp_path, "\n".join(rows(["0", "1"], 2)))
    arrays = catalog.load(path, "")
    train, test = splits.validation(np.arange(ROWS) % 2, 0.2)
    assert arrays.x_train[:, 0].tolist() == train.tolist()
    assert arrays.x_test[:, 0].tolist() == test.tolist()
    assert np.bincount(arrays.y_test).tolist() == [2, 2]
    assert catalog.describe(path, "") == (path, (2,), 2, 16, 4)


@pytest.mark.parametrize(
    ("counts", "test"),
    [
        ((2, 2), (1, 1)),  # a fifth would be one row
        ((100, 2), (19, 1)),
        ((2,) * 9, (1,) * 9),
        ((3, 2), (1, 1)),
        ((50, 50), (10, 10)),
    ],
)
def test_every_class_has_rows_in_both_parts(tmp_path, counts, test):
    labels = np.repeat(np.arange(len(counts)), counts)
    arrays = catalog.load(write(tmp_path, "\n".join(f"{i},{label}" for i, label in enumerate(labels))), "")
    assert tuple(np.bincount(arrays.y_test)) == test
    assert tuple(np.bincount(arrays.y_train)) == tuple(np.subtract(counts, test))
    x, y = together(arrays)
    assert (x[:, 0].tolist(), y.tolist()) == (list(range(len(labels))), labels.tolist())


GOOD = ["a,b,label", "1,2,p", "3,4,q", "5,6,p", "7,8,q"]
BAD = {
    "a short row": ([*GOOD, "9,p"], "line 6: 2 columns, where the first row has 3"),
    "a long row": ([*GOOD, "9,9,9,p"], "line 6: 4 columns"),
    "an empty feature": ([*GOOD, "9, ,p"], r"line 6, column 2 \(b\) is empty"),
    "an empty label": ([*GOOD, "9,9,"], r"line 6, column 3 \(label\): the label is empty"),
    "an empty name": ([",b,label", *GOOD[1:]], "line 1, column 1 is empty"),
    "text in a feature": ([*GOOD, "9,x,p"], r"line 6, column 2 \(b\): 'x' is no number"),
    "text without a header": ([*GOOD[1:], "9,x,p"], "line 5, column 2: 'x' is no number"),
    "text in the first row": (["x,2,p", *GOOD[1:]], "line 1, column 1: 'x' is no number"),
    "text after the label": (["label,b", "p,1", "q,2", "p,x"], r"line 4, column 2 \(b\): 'x' is no number"),
    "after a blank line": ([*GOOD, "", "9,x,p"], "line 7, column 2"),
    "nan": ([*GOOD, "nan,9,p"], r"line 6, column 1 \(a\): nan is not finite"),
    "infinity after the label": (["label,b", "p,1", "q,2", "p,-inf"], r"line 4, column 2 \(b\): -inf is not finite"),
    "beyond float32": ([*GOOD, "9,1e39,p"], r"line 6, column 2 \(b\): 1e\+39 is not finite as float32"),
    "no label": ([*GOOD, "9,9,NaN"], r"line 6, column 3 \(label\): the label is NaN"),
    "an infinite label": ([*GOOD, "9,9,inf"], r"line 6, column 3 \(label\): the label is inf"),
    "a label with a fraction": ([*GOOD, "9,9,0.37"], r"line 6, column 3 \(label\): a label is .* integer; found 0.37"),
    "fractions for labels": (["1,2,0.5", "3,4,1.5"], "line 1, column 3: a label is text or an integer; found 0.5"),
    "Python's digit groups": ([*GOOD, "1_000,9,p"], r"line 6, column 1 \(a\): '1_000' is no number"),
    "digits of another script": ([*GOOD, "9,\u0663,p"], r"line 6, column 2 \(b\): '\u0663' is no number"),
    "too large to square": ([*GOOD, "9,-2e18,p"], r"line 6, column 2 \(b\): -2e\+18 is beyond ±1e\+18"),
    "a quote that is not closed": ([*GOOD[:3], '5,"6,p', *GOOD[3:]], "commas: the row that begins in line 4.*quote"),
    "a quote that closes later": ([*GOOD, '5,"6,p', '5,"6",p'], "commas: the row that begins in line 6.*quote"),
    "a row of two lines": (['a,"b\nc",label', *GOOD[1:], "9,x,p"], "line 7, column 2 .*: 'x' is no number"),
    "where a row of two lines begins": ([*GOOD, '9,x,"p\nq"'], r"line 6, column 2 \(b\): 'x' is no number"),
    "one column below a blank line": (["", "a", "1"], "line 2: expected numbers and a label"),
    "one class": (["a,b,label", "1,2,p", "3,4,p"], "column 3: every label is p; two classes"),
    "a class of one row": ([*GOOD, "9,9,r"], r"line 6, column 3 \(label\): no other row has the label r"),
    "a header or an example": (["1,2,y", "3,4,n", "5,6,y", "7,8,n"], "line 1 may be a header or an example, as 'y'"),
    "two names of a label": (["a,label,y", *GOOD[1:]], "line 1: 'label' and 'y' may all be the label"),
    "two names of a label, y first": (["y,label,b", *GOOD[1:]], "line 1: 'y' and 'label' may all be the label"),
    "y between others, text in it": (["a,y,b", "1,p,2", "3,q,4"], r"line 2, column 2 \(y\): 'p' is no number"),
    "a header only": (GOOD[:1], "has a header and no examples"),
    "another separator": ([row.replace(",", ";") for row in GOOD], "line 1: expected .* commas; found 'a;b;label'"),
    "nothing": ([], "line 1: expected numbers and a label"),
}


@pytest.mark.parametrize(("lines", "message"), BAD.values(), ids=BAD)
def test_a_bad_table_is_refused_with_line_and_column(tmp_path, lines, message):
    path = write(tmp_path, "\n".join(lines))
    with pytest.raises(UserError, match=message) as error:
        catalog.load(path, "")
    assert str(error.value).startswith(path)
    assert "\n" not in str(error.value)


def test_what_is_no_text_or_no_file_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(UserError, match=f"no data set at {path}"):
        catalog.load(str(path), "")
    path.mkdir()
    with pytest.raises(UserError, match=f"{path} is a folder, no csv file"):
        catalog.load(str(path), "")
    path.rmdir()
    for content in ("\n".join(GOOD).encode("utf-16"), b"1,2,3\n\xff,1,2\n", b'"' + bytes(200_000)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path} cannot be read as text separated by commas"):
            catalog.load(str(path), "")

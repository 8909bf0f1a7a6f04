"""Names of the files that painted masks are written to."""

from vggtransfer.segmentation.painted_files import distinct, folder_name


def test_no_name_is_given_twice_or_leads_elsewhere():
    assert distinct(["a", "A", "a_2", "b"]) == ["a", "A_2", "a_2_2", "b"]
    assert distinct([folder_name(name) for name in ("x:y", "x?y", "..", "a/b")]) == ["x_y", "x_y_2", "_..", "a_b"]

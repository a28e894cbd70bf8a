"""Names of kernel code from a list of symbols."""

from stratokit.record import symbols

LIST = """\
ffffffff81000000 T first
ffffffff81000000 T also_first
ffffffff81000100 t second
ffffffff81000180 d data
ffffffffc0000000 t third\t[module]
"""


def write(tmp_path, text):
    path = tmp_path / "kallsyms"
    path.write_text(text)
    return path


def test_an_address_lies_in_the_function_before_it(tmp_path):
    path = write(tmp_path, LIST)
    wanted = [0xFFFFFFFF81000000, 0xFFFFFFFF810000FF, 0xFFFFFFFF81000190, 0xFFFFFFFFC0000001, 5]
    kernel = symbols.Kallsyms(path)
    names = kernel.names(wanted)
    assert list(names.values()) == ["first+0x0", "first+0xff", "second+0x90", "third+0x1"]
    assert kernel.readable()
    assert kernel.names(wanted[1:2]) == {wanted[1]: "first+0xff"}  # it is read again
    kernel.close()
    assert kernel.names(wanted) == {}


def test_zeros_are_no_symbols(tmp_path):
    path = write(tmp_path, "0000000000000000 T first\n0000000000000000 T second\n")
    for kernel in (symbols.Kallsyms(path), symbols.Kallsyms(tmp_path / "missing")):
        assert kernel.names([0xFFFFFFFF81000000]) == {}
        assert not kernel.readable()
        kernel.close()


def test_a_spool_gets_what_it_lacks(tmp_path):
    kernel = symbols.Kallsyms(write(tmp_path, LIST))
    names = symbols.DropNames(kernel)
    first = dict(names.new({0xFFFFFFFF81000001}, {3: [0xFFFFFFFF81000001, 0xFFFFFFFF81000101]}))
    assert first["symbols"] == [[0xFFFFFFFF81000001, "first+0x1"], [0xFFFFFFFF81000101, "second+0x1"]]
    assert first["stacks"] == [[3, [0xFFFFFFFF81000001, 0xFFFFFFFF81000101]]]
    again = dict(names.new({0xFFFFFFFF81000001}, {3: [0xFFFFFFFF81000001, 0xFFFFFFFF81000101]}))
    assert again == {}
    names.forget()
    assert dict(names.new({0xFFFFFFFF81000001}, {}))["symbols"] == first["symbols"][:1]
    assert names.counts() == {"drop_unnamed": 0}
    assert dict(names.new({7}, {})) == {}
    assert names.counts() == {"drop_unnamed": 1}
    kernel.close()

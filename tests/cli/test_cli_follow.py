"""`stratokit follow`: what it prints, and what it says of what it could not."""

from __future__ import annotations


def test_both_sides_in_turn(stratokit, shop):
    done = stratokit("follow", shop, 2)
    assert done.code == 0, done.err
    assert "GET /" in done.out
    assert done.out.index("GET /") < done.out.index("HTTP/1.1")


def test_a_cut_file_is_read_as_far_as_it_goes(stratokit, shop, tmp_path):
    whole = tmp_path / "whole.pcap"
    assert stratokit("convert", shop, whole).code == 0
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole.read_bytes()[:-7])
    flow = stratokit("table", "tcp", cut, "--select", "flow_id", "--format", "csv").out.split()[1]
    done = stratokit("follow", cut, flow)
    assert done.code == 0
    assert "GET /" in done.out
    assert "cut.pcap" in done.err
    assert "what stands before was read" in done.err
    assert "cut" in stratokit("info", cut).out


def test_only_one_form_and_only_conversations_there_are(stratokit, shop):
    assert stratokit("follow", shop, 2, "--raw", "--hex").code == 2
    done = stratokit("follow", shop, 999_999)
    assert done.code == 2
    assert "999999" in done.err


def test_a_key_log_without_secrets_is_worth_a_remark(stratokit, shop, tmp_path):
    keys = tmp_path / "keys.log"
    keys.write_text("# nothing yet\n")
    done = stratokit("table", "tls", shop, "--keylog", keys)
    assert done.code == 0
    assert f"{keys} holds no secrets of TLS" in done.err
    keys.write_text(f"CLIENT_RANDOM {'0a' * 32} {'01' * 48}\n")
    assert stratokit("table", "tls", shop, "--keylog", keys).err == ""

"""URIs that must never be fetched: each is refused before a packet leaves."""

from collections.abc import Iterator

import pytest

from filter_service.egress.client import Internet, is_public
from filter_service.egress.uri_rules import AllowList, check
from filter_service.errors import InvalidSettings, UnsafeAddress
from filter_service.intake.download import get
from tests.support.foreign_servers import HERE, WIRE, Foreign, Names, body, redirect, serving

# Their hosts, had they any, are all allowed, and every name is at 127.0.0.1, where a server waits.
MALFORMED = [
    "",
    "/etc/passwd",
    "images.example.org/a.jpg",
    "//images.example.org:{port}/a.jpg",
    "http:/images.example.org:{port}/a.jpg",
    "http:images.example.org:{port}/a.jpg",
    "http:///a.jpg",
    "http://",
    "http://:{port}/",
    "file:///etc/passwd",
    "file://images.example.org:{port}/etc/passwd",
    "FILE:///etc/passwd",
    "gopher://images.example.org:{port}/_GET",
    "ftp://images.example.org:{port}/a.jpg",
    "data:image/png;base64,iVBORw0KGgo=",
    "dict://images.example.org:{port}/stat",
    "ldap://images.example.org:{port}/",
    "jar:http://images.example.org:{port}/a!/b",
    "unix:///var/run/docker.sock",
    "ws://images.example.org:{port}/",
    "javascript:alert(1)",
    "view-source:http://images.example.org:{port}/",
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}",
    "http://127.0.0.2:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0177.0.0.01:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0x:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.0.0.1%00.example.org:{port}/",
    "http://127%2e0%2e0%2e1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[v1.127]:{port}/",
    "http://::1:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254.:80/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://0251.0376.0251.0376/latest/meta-data/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/metadata/instance",
    "http://192.0.0.192/opc/v1/instance/",
    "http://10.0.0.1:{port}/",
    "http://8.8.8.8:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://images.localhost:{port}/",
    "http://localhost.localdomain:{port}/",
    "http://metadata/computeMetadata/v1/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata.goog/computeMetadata/v1/",
    "http://instance-data.ec2.internal/latest/meta-data/",
    "http://metadata.tencentyun.com/latest/meta-data/",
    "http://metadata.platformequinix.com/metadata",
    "http://kubernetes.default.svc.cluster.local/",
    "http://printer.local/",
    "http://router.lan/",
    "http://wiki.home.arpa/",
    "http://images.example.org.:{port}/a.jpg",
    "http://images..example.org:{port}/a.jpg",
    "http://.example.org:{port}/a.jpg",
    "http://-.example.org:{port}/a.jpg",
    "http://*.example.org:{port}/a.jpg",
    "http://images.example.org:{port}:80/a.jpg",
    "http://images.example.org:/a.jpg",
    "http://images.example.org:0/a.jpg",
    "http://images.example.org:65536/a.jpg",
    "http://images.example.org:99999999/a.jpg",
    "http://images.example.org:-1/a.jpg",
    "http://images.example.org:８０/a.jpg",
    "http://user@images.example.org:{port}/a.jpg",
    "http://user:secret@images.example.org:{port}/a.jpg",
    "http://@images.example.org:{port}/a.jpg",
    "http://images.example.org@127.0.0.1:{port}/",
    "http://127.0.0.1@images.example.org:{port}/",
    "http://images.example.org:{port}@127.0.0.1/",
    "http://images.example.org%40127.0.0.1:{port}/",
    "http://images.example.org:{port}\\@127.0.0.1/",
    "http://127.0.0.1:{port}\\@images.example.org/",
    "http://images.example.org\\.evil.example.com:{port}/",
    "http:\\\\images.example.org:{port}\\a.jpg",
    "http://images.example.org :{port}/a.jpg",
    " http://images.example.org:{port}/a.jpg",
    "http://images.example.org:{port}/a.jpg\n",
    "http://images.example.org:{port}/a b.jpg",
    "ht\ntp://images.example.org:{port}/a.jpg",
    "http://images.exam\tple.org:{port}/a.jpg",
    "http://127.0.0.1\t.example.org:{port}/",
    "http://images.example.org:{port}/a.jpg\r\nX-Injected: 1",
    "http://images.example.org:{port}/a.jpg HTTP/1.1\r\nHost: inside",
    "http://images.example.org:{port}/\x00",
    "http://images.example.org:{port}/\ud800",
    "http://images.example.org:{port}/%zz",
    "http://images.example.org:{port}/%0",
    "http://１２７.０.０.１:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://ｌｏｃａｌｈｏｓｔ:{port}/",
    "http://images。example。org:{port}/a.jpg",
    "http://imagés.example.org:{port}/a.jpg",
    "http://images.example.org\u2044@127.0.0.1:{port}/",
    "http://images.example.org:{port}/\u202egpj.a",
    "http://images.example.org:{port}/" + "a" * 9_000,
    "http://" + "a" * 64 + ".example.org:{port}/a.jpg",
    "http://" + "a." * 130 + "example.org:{port}/a.jpg",
    "s3://",
    "s3://bucket",
    "s3://bucket/",
    "s3://../etc/passwd",
    "s3://BUCKET/key.jpg",
    "s3://bucket@host/key.jpg",
    "s3://bucket::file:///etc/passwd",
    "s3://bucket/key\x00.jpg",
    "S3://bucket/key.jpg",
]
# Well-formed, but of a host that is not among the allowed ones.
FOREIGN = [
    "http://example.org:{port}/a.jpg",
    "http://images.example.org/a.jpg",
    "https://images.example.org/a.jpg",
    "http://images.example.org:22/",
    "http://evil.example.com:{port}/a.jpg",
    "http://evilexample.org:{port}/a.jpg",
    "http://images.example.org.evil.com:{port}/a.jpg",
    "http://xn--imags-esa.example.com:{port}/a.jpg",
    "s3://other/key.jpg",
    "s3://bucket.images.example.org/key.jpg",
]
# Relative to an allowed host these are a path of its own, or the host itself.
RELATIVE = {
    "",
    "/etc/passwd",
    "images.example.org/a.jpg",
    "//images.example.org:{port}/a.jpg",
    "http:/images.example.org:{port}/a.jpg",
    "http:images.example.org:{port}/a.jpg",
    "http:///a.jpg",
    "http://",
}
REDIRECTS = [  # what a header can say
    uri
    for uri in (*MALFORMED, *FOREIGN)
    if uri not in RELATIVE and uri.isascii() and uri.isprintable() and uri == uri.strip()
]
# What an allowed name may mean.
INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "2a00:1450:4001::1%lo",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "223.255.255.1", "2a00:1450::1"]


@pytest.fixture(scope="module")
def server() -> Iterator[Foreign]:
    with serving() as found:
        found.answers.update({"/a.jpg": body(b"bytes"), "/": body(b"bytes")})
        yield found


@pytest.fixture(autouse=True)
def nobody_came(server: Foreign) -> None:
    server.connections.clear()


def names(uri: str) -> str:
    return ascii(uri[:60])


@pytest.mark.parametrize("uri", MALFORMED + FOREIGN, ids=names)
def test_a_hostile_uri_is_refused_before_a_packet_leaves(uri: str, server: Foreign) -> None:
    hosts = (*server.hosts, "s3://bucket")
    resolve = Names({})
    with WIRE.watching() as seen, pytest.raises(UnsafeAddress) as refused:
        get(uri.replace("{port}", str(server.port)), hosts, 5, 1_000, Internet(resolve, HERE))
    assert (seen, resolve.asked, server.connections) == ([], [], [])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_that_means_an_address_inside_is_refused(address: str, server: Foreign) -> None:
    resolve = Names({"images.example.org": [[address]]})
    with WIRE.watching() as seen, pytest.raises(UnsafeAddress, match="not one of the public"):
        get(server.uri("/a.jpg"), server.hosts, 5, 1_000, Internet(resolve))
    assert (seen, server.connections) == ([], [])


@pytest.mark.parametrize("others", [["8.8.8.8"], ["8.8.8.8", "2a00:1450::1"]])
def test_one_address_inside_among_public_ones_is_enough(others: list[str], server: Foreign) -> None:
    resolve = Names({"images.example.org": [[*others, "127.0.0.1"]]})
    with WIRE.watching() as seen, pytest.raises(UnsafeAddress, match=r"127\.0\.0\.1"):
        get(server.uri("/a.jpg"), server.hosts, 5, 1_000, Internet(resolve))
    assert seen == []


@pytest.mark.parametrize("uri", REDIRECTS, ids=names)
def test_no_redirect_leads_there_either(uri: str, server: Foreign) -> None:
    server.answers["/moved"] = redirect(uri.replace("{port}", str(server.port)))
    hosts = (*server.hosts, "s3://bucket", "s3://other")
    with WIRE.watching() as seen, pytest.raises(UnsafeAddress):
        get(server.uri("/moved"), hosts, 5, 1_000, Internet(Names({}), HERE))
    here = ("socket.connect", ("127.0.0.1", server.port))
    assert [event for event in seen if event[0] == "socket.connect"] == [here]


def test_the_server_that_waits_would_have_answered(server: Foreign) -> None:
    internet = Internet(Names({}), HERE)
    assert get(server.uri("/a.jpg"), server.hosts, 5, 1_000, internet) == b"bytes"
    assert len(server.connections) == 1


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_public_internet_is_one(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "uri",
    [
        "https://images.example.org/a.jpg",
        "http://images.example.org:80/a.jpg",
        "HTTPS://Images.Example.ORG/a%20b.jpg?signature=x%2F/:@#part",
        "https://images.example.org",
        "https://cdn.example.net:8443/a.jpg",
        "https://a.b.example.com/a.jpg",
        "s3://bucket/folder/ä picture (1).jpg",
    ],
)
def test_what_the_operator_allows_may_be_fetched(uri: str) -> None:
    hosts = ["images.example.org", "cdn.example.net:8443", "*.example.com", "s3://bucket"]
    check(uri, hosts)


def test_without_allowed_hosts_the_message_names_the_setting() -> None:
    with pytest.raises(UnsafeAddress, match="FILTER_SERVICE_FETCH_HOSTS"):
        check("https://images.example.org/a.jpg", ())


def test_neither_password_nor_query_is_in_the_message() -> None:
    for uri in ("https://me:secret@images.example.org/", "https://x.example.org/?token=secret"):
        with pytest.raises(UnsafeAddress) as refused:
            check(uri, ())
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "*.org", "org", "https://a.org", "a.org/", "a.org:0", "a.org:x", "10.0.0.1",
     "[::1]", "localhost", "*.internal", "a.*.org", "s3://", "s3://a/b", "me@a.org", "a.org."],
)  # fmt: skip
def test_what_is_no_host_cannot_be_allowed(entry: str) -> None:
    with pytest.raises(InvalidSettings, match="FILTER_SERVICE_FETCH_HOSTS"):
        AllowList.of([entry])

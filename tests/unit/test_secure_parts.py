"""The parts of secure aggregation against published vectors, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from shoal.common.errors import ConfigError, DisclosureError
from shoal.common.privacy.noise import SeededRandomness
from shoal.common.secure import field, graph
from shoal.common.secure.agreement import Channel, KeyPair, channel_keys, derive, mask_key
from shoal.common.secure.digest import digest
from shoal.common.secure.fixed_point import FixedPoint, to_ring
from shoal.common.secure.masks import Mask, add_masks, key_stream
from shoal.common.secure.noise import noise_share
from shoal.common.weights import weights_to_record
from shoal.common.wire.codec import pack, unpack


def test_shamir_known_answer() -> None:
    """f(x) = 1234 + 166 x + 94 x² modulo 1613, the example of Wikipedia on Shamir."""
    assert field.split(1234, 3, [1, 2, 3, 4, 5, 6], prime=1613, draw=draws(166, 94)) == [
        1494,
        329,
        965,
        176,
        1188,
        775,
    ]
    assert field.combine({2: 329, 4: 176, 5: 1188}, prime=1613) == 1234
    assert field.combine({1: 1494, 3: 965}, prime=1613) != 1234  # two shares of three


def draws(*numbers: int):  # type: ignore[no-untyped-def]
    left = list(numbers)
    return lambda bound: left.pop(0)


def test_fewer_shares_than_the_threshold_reveal_nothing() -> None:
    """All of the field at once: whatever the secret, two of three shares take each pair of values once."""
    prime = 5
    for secret in range(prime):
        seen = {
            tuple(field.split(secret, 3, [1, 2, 3], prime=prime, draw=draws(a, b))[:2])
            for a in range(prime)
            for b in range(prime)
        }
        assert len(seen) == prime * prime


def test_the_field_holds_any_secret_of_32_bytes() -> None:
    assert field.PRIME > 2**256
    assert all(pow(base, field.PRIME - 1, field.PRIME) == 1 for base in (2, 3, 5, 7, 11))  # Fermat
    largest = b"\xff" * 32
    shares = field.split(field.secret_to_int(largest), 2, [1, 2, 3])
    sent = [field.share_from_bytes(field.share_to_bytes(share)) for share in shares]
    assert field.int_to_secret(field.combine({1: sent[0], 3: sent[2]})) == largest
    assert field.int_to_secret(2**256) is None


@pytest.mark.parametrize("points", [[0, 1, 2], [1, 1, 2], [1, 2, 1614]])
def test_shares_at_bad_points_are_refused(points: list[int]) -> None:
    with pytest.raises(ValueError, match="points"):
        field.split(7, 2, points, prime=1613)
    with pytest.raises(ValueError, match="threshold"):
        field.split(7, 3, [1, 2])
    with pytest.raises(ValueError, match="outside"):
        field.split(1613, 1, [1], prime=1613)
    with pytest.raises(ValueError, match="not a share"):
        field.share_from_bytes(field.PRIME.to_bytes(33))


BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")


def test_x25519_vectors_of_rfc_7748() -> None:
    """Section 6.1, and the first and thousandth iterations of section 5.2."""
    public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert KeyPair.of(BOB).public.hex() == public
    secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert KeyPair.of(BOB).exchange(ALICE_PUBLIC).hex() == secret
    k = u = bytes([9]) + bytes(31)
    for i in range(1000):
        k, u = KeyPair.of(k).exchange(u), k
        if i == 0:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_hkdf_vectors_of_rfc_5869() -> None:
    """Test cases 1 and 3."""
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    assert derive(b"\x0b" * 22, info, salt=salt, length=42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert derive(b"\x0b" * 22, b"", length=42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_key_stream_is_aes_256_ctr_of_nist_sp_800_38a() -> None:
    """F.5.5: the first two blocks; a key stream is plain text xor cipher text."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    cipher = bytes.fromhex("601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5")
    stream = key_stream(key, 32, counter=bytes(range(0xF0, 0x100)))
    assert bytes(a ^ b for a, b in zip(plain, stream, strict=True)) == cipher


def test_a_mask_is_the_key_stream_and_comes_off_again() -> None:
    key, size = bytes(range(32)), (1 << 16) + 5  # over the end of a block
    vector = np.zeros(size, np.uint32)
    add_masks(vector, [Mask(key)])
    np.testing.assert_array_equal(vector, np.frombuffer(key_stream(key, 4 * size), "<u4"))
    add_masks(vector, [Mask(BOB), Mask(key, subtract=True), Mask(BOB, subtract=True)])
    assert not vector.any()


def test_both_clients_derive_one_mask_key_for_a_session() -> None:
    one, other = KeyPair.new(), KeyPair.new()
    key = mask_key(one, other.public, b"session", b"asked")
    assert key == mask_key(other, one.public, b"session", b"asked")
    assert key != mask_key(one, other.public, b"another", b"asked")
    assert key != mask_key(one, other.public, b"session", b"other")
    assert one.private.hex() not in repr(one)


def test_public_keys_that_hide_nothing_are_refused() -> None:
    for public in (bytes(32), bytes([1]) + bytes(31), b"short"):  # RFC 7748, section 6.1: the zero check
        with pytest.raises(DisclosureError):
            KeyPair.of(BOB).exchange(public)


def test_what_is_sealed_is_read_by_its_receiver_only_and_not_changed() -> None:
    a, b, c = KeyPair.new(), KeyPair.new(), KeyPair.new()
    to, back = channel_keys(a, b.public, b"s")
    sealed = Channel(to, 1, 2).seal(b"share")
    _, key = channel_keys(b, a.public, b"s")
    assert Channel(key, 1, 2).open(sealed) == b"share"
    others = {
        "another session": Channel(channel_keys(b, a.public, b"t")[1], 1, 2),
        "another receiver": Channel(channel_keys(c, a.public, b"s")[1], 1, 2),
        "the other direction": Channel(back, 1, 2),
        "said to be for another": Channel(key, 1, 3),
    }
    assert [name for name, channel in others.items() if channel.open(sealed) is not None] == []
    assert Channel(key, 1, 2).open(sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert Channel(key, 1, 2).open(b"") is None
    assert key.hex() not in repr(Channel(key, 1, 2)) + repr(a)


def test_the_digest_of_a_request_is_of_its_content_not_of_its_way() -> None:
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((), np.int64)]

    def request(rate: float = 0.1, weights: list[np.ndarray] = weights, **more: object) -> RecordDict:
        config = ConfigRecord({"rate": rate, "ids": [1, 2], "name": "é", "key": b"k", **more})  # type: ignore[dict-item]
        return RecordDict({"config": config, "arrays": weights_to_record(weights)})

    packed = pack(request())
    travelled = unpack(b"".join(packed.parts), packed.content_bytes)
    assert digest(travelled) == digest(request()) == digest(RecordDict(dict(reversed(request().items()))))
    changed = [request(0.2), request(weights=weights[:1]), request(weights=[w + 1 for w in weights])]
    changed += [request(weights=[weights[0].T, weights[1]]), request(more=1), RecordDict()]
    assert len({digest(c) for c in [request(), *changed]}) == 7


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (3, graph.Parameters(3, 2, 3, 3, 0)),  # ⌊0.9⌋ = 0 lost or colluding
        (10, graph.Parameters(10, 9, 7, 7, 3)),  # complete; 10 - 3 holders are left
        (100, graph.Parameters(100, 60, 32, 70, 30)),
        (1000, graph.Parameters(1000, 212, 113, 700, 300)),
    ],
)
def test_parameters_are_those_of_the_page(clients: int, expected: graph.Parameters) -> None:
    assert graph.choose(clients, 0.3, 0.3) == expected


def test_the_bounds_of_a_sparse_graph_hold_by_counting() -> None:
    """n = 100: the chances again, from binomial coefficients instead of scipy."""
    found = graph.choose(100, 0.3, 0.3)
    k, t, n, marked = found.neighbours, found.threshold, 100, 30
    ways = math.comb(n - 1, k)

    def chance(total: int, x: int) -> float:  # that x of the k neighbours are among `total`
        return math.comb(total, x) * math.comb(n - 1 - total, k - x) / ways

    told = n * sum(chance(marked, x) for x in range(t, marked + 1))
    assert told <= 2**-40
    lost = 70 * sum(chance(30, x) for x in range(k + 2 - t, 31))
    lost += 30 * sum(chance(29, x) for x in range(k + 1 - t, 30))
    assert lost <= 2**-20
    # two stretches of 30 places each, all 60 lost or colluding
    assert math.comb(n, 2) * math.comb(60, k) / math.comb(n, k) <= 2**-40


@pytest.mark.parametrize(("n", "k"), [(7, 6), (10, 4), (101, 20)])
def test_the_graph_is_regular_symmetric_and_falls_apart_only_between_two_stretches(n: int, k: int) -> None:
    order = [int(c) for c in np.random.default_rng(1).permutation(n) + 5]
    near = graph.neighbours(order, k)
    assert all(len(set(v)) == k and u not in v and v == sorted(v) for u, v in near.items())
    assert all(u in near[v] for u in near for v in near[u])
    if k < n - 1:
        left = set(order) - {*order[1 : k // 2 + 1]}  # one stretch: still connected
        assert connected(left, near)
        assert not connected(left - {*order[k // 2 + 2 : k + 2]}, near)  # two
        with pytest.raises(ValueError, match="no ring"):
            graph.neighbours(order, 3)


def connected(clients: set[int], near: dict[int, list[int]]) -> bool:
    found, todo = set[int](), [min(clients)]
    while todo:
        u = todo.pop()
        found.add(u)
        todo += [v for v in near[u] if v in clients and v not in found]
    return found == clients


def test_only_complete_graphs_withstand_a_server_that_reports_two_stories() -> None:
    """n = 10: a holder gives one share; 7 + 7 of 10 holders, of whom 3 give both, are 14 > 13."""
    assert graph.choose(10, 0.3, 0.3).resists_split_view
    assert not graph.choose(1000, 0.3, 0.3).resists_split_view


def test_cohorts_whose_sum_reveals_one_client_are_refused() -> None:
    for clients, dropout, colluding in ((2, 0.0, 0.0), (3, 0.34, 0.34), (5, 0.49, 0.49)):
        with pytest.raises(ConfigError, match=f"of {clients} clients"):
            graph.choose(clients, dropout, colluding)


def test_noise_makes_room_for_itself() -> None:
    """10 clients of ±S, and 10 standard deviations of 3 ranges each, below 2^31: S = 2^25 is the last."""
    fixed = FixedPoint.for_sum(10, 1.0, stddev=3.0)
    assert fixed.levels == 2 ** math.floor(math.log2((2**31 - 1) / 40)) == 2**25
    with pytest.raises(ValueError, match="overflows"):
        FixedPoint.for_sum(10, 1.0, stddev=1e9)


def test_shares_of_noise_add_up_to_a_gaussian() -> None:
    """Of 25 shares of 4 levels: variance 25 (16 + 1/12), and the kurtosis of a Gaussian.

    With 40,000 numbers the variance estimate has a standard error of √(2 / 40,000) = 0.7 %, kurtosis of
    √(24 / 40,000) = 0.024; four of them are allowed.
    """
    size, clients, stddev = 40_000, 25, 4.0
    total = sum(
        noise_share(SeededRandomness(np.random.default_rng(k)), stddev, size).astype(np.float64)
        for k in range(clients)
    )
    expected = clients * (stddev**2 + 1 / 12)
    assert abs(np.mean(total**2) / expected - 1) < 4 * math.sqrt(2 / size)
    assert abs(np.mean(total**4) / np.mean(total**2) ** 2 - 3) < 4 * math.sqrt(24 / size)
    with pytest.raises(ValueError, match=r"3\.9"):
        noise_share(SeededRandomness(np.random.default_rng(1)), 3.9, 10)


def test_the_sum_of_rounded_gaussians_has_the_weights_of_the_page() -> None:
    """Two shares of 4 levels: the convolution of their weights is the density of Gaussian plus uniforms.

    Both sides from the normal distribution alone: weights of round(N(0, 16)) are differences of its
    distribution function; the density of N(0, 32) + U + U' is a second difference of its second integral.
    """
    stddev, k = 4.0, np.arange(-60, 61)

    def cdf(x: np.ndarray, s: float) -> np.ndarray:
        return np.array([0.5 * math.erfc(-v / (s * math.sqrt(2))) for v in x])

    one = cdf(k + 0.5, stddev) - cdf(k - 0.5, stddev)
    two = np.convolve(one, one)[60:-60]
    s = stddev * math.sqrt(2)

    def twice_integrated(x: np.ndarray) -> np.ndarray:  # ∫∫ density = x Φ(x/s) + s φ(x/s)
        return x * cdf(x, s) + s * np.exp(-(x**2) / (2 * s**2)) / math.sqrt(2 * math.pi)

    density = twice_integrated(k + 1.0) - 2 * twice_integrated(k * 1.0) + twice_integrated(k - 1.0)
    near = np.abs(k) <= 20
    np.testing.assert_allclose(two[near], density[near], rtol=1e-9)


def test_rounding_commutes_with_whole_shifts() -> None:
    shift, g = np.arange(-500, 500), np.random.default_rng(1).normal(size=1000) * 4
    np.testing.assert_array_equal(shift + np.rint(g), np.rint(shift + g))


def test_numbers_modulo_2_to_the_32_wrap_around() -> None:
    whole = np.array([-1, 0, 2**31 - 1, -(2**31)])
    assert to_ring(whole).tolist() == [2**32 - 1, 0, 2**31 - 1, 2**31]


def test_no_lie_about_who_stayed_makes_a_sum_smaller_than_its_noise_allows_for() -> None:
    """All sums on rings of 12 places, by brute force: each client in one has t of its window in it too."""
    n = 12
    sums = np.array([[(bits >> i) & 1 for i in range(n)] for bits in range(1, 1 << n)], bool)
    for k in (4, 6, 8):
        windows = sum(np.roll(sums, step, axis=1).astype(int) for step in range(-k // 2, k // 2 + 1))
        for t in range(2, k + 2):
            possible = sums[((windows >= t) | ~sums).all(axis=1)]
            smallest = possible.sum(axis=1).min()
            found = graph.Parameters(n, k, t, least=0, colluding=0).fewest
            assert found <= smallest, (k, t)
            assert found >= t - 1e-9


def test_the_noise_of_a_ring_is_for_the_clients_that_are_certain_to_be_in_its_sum() -> None:
    """100 clients, k = 60, t = 32, so that g = 29 and d = 900 / 116 = 7.76: 100 · 24.24 / 53.24 = 45.5.

    The 70 that must stay by max_dropout are what an honest server waits for: noise for them would leave a
    dishonest one √(46 / 70) = 0.81 of it.
    """
    found = graph.choose(100, 0.3, 0.3)
    assert (found.neighbours, found.threshold, found.least) == (60, 32, 70)
    assert found.fewest == 46
    for clients in (3, 4, 10, 64):  # complete graphs: everybody is everybody's neighbour
        parameters = graph.choose(clients, 0.3, 0.2)
        assert parameters.fewest == parameters.threshold == parameters.least

"""Where members go: the published cost model, the search, and its lower bound."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from assay.group.bound import proven_bound, simple_bound
from assay.group.cost import TrainingCosts, cost_tables, layer_split, pair_members, step_time, unplanned_time
from assay.group.errors import ClusterError, PlacementError
from assay.group.network import Cluster, Device, Network, interchangeable_classes, network_from_groups
from assay.group.scenarios import load_scenario, published_costs
from assay.group.search import SearchSettings, exact_placement, find_placement, heuristic_placement

PUBLISHED_SECONDS = {"two_data_centers": 16.0868, "regional": 34.8020, "world_wide": 49.2184}
RANDOM_MEANS = {"two_data_centers": 54.69, "regional": 60.99, "world_wide": 171.8}


def random_cluster(seed: int, devices: int, *, unequal: bool = False) -> Cluster:
    random = np.random.default_rng(seed)
    delay = random.uniform(0.001, 0.2, (devices, devices))
    bandwidth = random.uniform(1e7, 1e9, (devices, devices))
    delay, bandwidth = np.maximum(delay, delay.T), np.minimum(bandwidth, bandwidth.T)
    members = tuple(
        Device(f"d{i}", float(random.uniform(1, 6)) * 1e12 if unequal else 0.0, 8e9 if unequal and i % 2 else 0.0)
        for i in range(devices)
    )
    return Cluster(members, Network(delay, bandwidth))


def grouped_cluster(seed: int, counts: list[int]) -> Cluster:
    random = np.random.default_rng(seed)
    size = len(counts)
    delay = random.uniform(1, 200, (size, size))
    bandwidth = random.uniform(0.3, 2, (size, size))
    delay, bandwidth = np.maximum(delay, delay.T), np.minimum(bandwidth, bandwidth.T)
    np.fill_diagonal(bandwidth, 3.0)
    group_of = np.repeat(np.arange(size), counts)
    devices = tuple(Device(f"d{i}") for i in range(len(group_of)))
    return Cluster(devices, network_from_groups(group_of, delay, bandwidth))


@pytest.mark.parametrize("name", RANDOM_MEANS)
def test_random_placement_costs_what_the_study_reports(name: str) -> None:
    tables, costs = cost_tables(load_scenario(name).cluster, published_costs()), published_costs()
    random = np.random.default_rng(1)
    seconds = [unplanned_time(random.permutation(64), tables, costs).communication for _ in range(500)]
    assert np.mean(seconds) == pytest.approx(RANDOM_MEANS[name], rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_SECONDS)
def test_search_reaches_the_published_solver(name: str) -> None:
    settings = SearchSettings(random_starts=1, iterations=100_000)
    found = find_placement(load_scenario(name).cluster, published_costs(), settings)
    assert found.time.communication <= PUBLISHED_SECONDS[name]
    assert sorted(found.order) == list(range(64))


def test_search_repeats_itself_for_the_same_seed() -> None:
    settings = SearchSettings(seed=3, random_starts=1, iterations=5_000)
    cluster, costs = load_scenario("world_wide").cluster, published_costs()
    assert find_placement(cluster, costs, settings).order == find_placement(cluster, costs, settings).order


@pytest.mark.parametrize("shape", [(2, 4), (4, 2), (8, 1), (1, 8), (3, 2)])
@pytest.mark.parametrize("unequal", [False, True])
def test_heuristic_matches_the_exhaustive_search_up_to_eight_devices(shape: tuple[int, int], unequal: bool) -> None:
    cluster = random_cluster(sum(shape), 8, unequal=unequal)
    costs = TrainingCosts(*shape, activation_bytes=3e7, parameter_bytes=2e8)
    if unequal:
        costs = replace(costs, layers=8 * min(2, shape[0]), layer_flops=1e12, layer_memory_bytes=1e9, microbatches=4)
    exact = exact_placement(cluster, costs)
    found = heuristic_placement(cluster, costs, SearchSettings(iterations=40_000))
    assert found.time.total == pytest.approx(exact.time.total, rel=1e-9)


def test_bottleneck_matching_is_the_best_of_all_matchings() -> None:
    cluster = random_cluster(5, 8)
    costs = TrainingCosts(2, 4, activation_bytes=1e8, parameter_bytes=1e8)
    tables = cost_tables(cluster, costs)
    order = np.arange(8)
    best = min(
        max(tables.round_trip[a, b] for a, b in zip(range(4), second, strict=True))
        for second in itertools.permutations(range(4, 8))
    )
    assert step_time(order, tables, costs).pipeline == pytest.approx(best)
    pipelines = pair_members(order, tables, costs)
    assert max(tables.round_trip[a, b] for a, b in pipelines) == pytest.approx(best)


def test_exchange_is_the_published_formula() -> None:
    cluster = random_cluster(6, 4)
    costs = TrainingCosts(1, 4, activation_bytes=0, parameter_bytes=4e8)
    network = cluster.network
    slowest = max(
        sum(2 * (network.delay_seconds[i, j] + 4e8 / (4 * network.bandwidth[i, j])) for j in range(4) if j != i)
        for i in range(4)
    )
    assert step_time(np.arange(4), cost_tables(cluster, costs), costs).data_parallel == pytest.approx(slowest)


@pytest.mark.parametrize("seed", range(6))
def test_proven_bound_is_the_optimum_of_small_networks(seed: int) -> None:
    cluster = grouped_cluster(seed, [[4, 2, 2], [3, 3, 2], [4, 4], [2, 2, 2, 2], [1, 3, 4], [6, 2]][seed])
    costs = TrainingCosts(4, 2, activation_bytes=5e7, parameter_bytes=1e8)
    exact = exact_placement(cluster, costs).time.communication
    bound = proven_bound(cluster, costs, 1.5 * exact)
    assert bound.method == "enumeration"
    assert bound.seconds == pytest.approx(exact, rel=1e-9)
    assert simple_bound(cost_tables(cluster, costs), costs) <= exact


@pytest.mark.parametrize("name", ["two_data_centers", "regional"])
def test_placements_of_the_study_are_proven_optimal(name: str) -> None:
    cluster, costs = load_scenario(name).cluster, published_costs()
    known = find_placement(cluster, costs, SearchSettings(random_starts=0, iterations=50_000)).time.communication
    bound = proven_bound(cluster, costs, known)
    assert (bound.method, bound.seconds) == ("enumeration", pytest.approx(known))


def test_classes_hold_interchangeable_devices_only() -> None:
    scenario = load_scenario("world_wide")
    classes = interchangeable_classes(scenario.cluster)
    assert [len(set(classes[i : i + 8])) for i in range(0, 64, 8)] == [1] * 8
    assert len(set(classes)) == 8
    assert len(set(interchangeable_classes(random_cluster(0, 6)))) == 6


def test_faster_members_get_more_layers_within_their_memory() -> None:
    devices = (Device("fast", 8e12), Device("small", 8e12, memory_bytes=2e9), Device("slow", 1e12))
    apart = np.ones((3, 3)) - np.eye(3)
    cluster = Cluster(devices, Network(0.01 * apart, 1e9 * apart + np.eye(3)))
    costs = TrainingCosts(3, 1, 1e6, 1e6, layers=12, layer_flops=1e12, layer_memory_bytes=1e9, microbatches=4)
    assert layer_split(np.array([0, 1, 2]), cost_tables(cluster, costs), costs) == (9, 2, 1)


def test_a_split_that_does_not_fit_is_refused() -> None:
    cluster = random_cluster(1, 2)
    small = Cluster(tuple(replace(d, memory_bytes=1e9) for d in cluster.devices), cluster.network)
    costs = TrainingCosts(2, 1, 1e6, 1e6, layers=8, layer_memory_bytes=1e9)
    with pytest.raises(PlacementError, match="use more stages"):
        find_placement(small, costs)


def test_too_few_devices_are_refused() -> None:
    with pytest.raises(PlacementError, match="need 9 devices"):
        find_placement(random_cluster(0, 8), TrainingCosts(3, 3, 1e6, 1e6))


def test_asymmetric_links_are_refused() -> None:
    with pytest.raises(ClusterError, match="not symmetric"):
        Network(np.array([[0.0, 1.0], [2.0, 0.0]]), np.ones((2, 2)))

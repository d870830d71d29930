import pytest
import torch
from torch import nn

from mixbench.streams import Streams


def draws(generator, count=8):
    return torch.rand(count, generator=generator).tolist()


def test_a_stream_is_a_function_of_seed_name_and_key():
    assert draws(Streams(3).generator("order", 5)) == draws(Streams(3).generator("order", 5))


@pytest.mark.parametrize(
    "other",
    [
        lambda: Streams(4).generator("order", 5),
        lambda: Streams(3).generator("views", 5),
        lambda: Streams(3).generator("order", 6),
        lambda: Streams(3).generator("order"),
        lambda: Streams(3).generator("order", 5, 0),
        lambda: Streams(35).generator("order"),
    ],
    ids=["seed", "name", "key", "no key", "longer key", "digits moved"],
)
def test_streams_of_other_seeds_names_and_keys_differ(other):
    assert draws(Streams(3).generator("order", 5)) != draws(other())


def test_a_streams_first_numbers_are_pinned():
    generator = Streams(0).generator("order", 1)
    assert torch.randint(1000, (5,), generator=generator).tolist() == [956, 88, 933, 401, 657]


def test_drawing_from_one_stream_shifts_no_other():
    streams, others = Streams(0), Streams(0)
    draws(streams.mix, 100)
    draws(streams.generator("order", 0), 100)
    torch.rand(100)
    assert draws(streams.generator("views", 0)) == draws(others.generator("views", 0))
    assert draws(Streams(0).mix) == draws(others.mix)


def test_the_mixers_stream_goes_on_where_it_was():
    streams = Streams(0)
    assert draws(streams.mix, 4) + draws(streams.mix, 4) == draws(Streams(0).mix, 8)


def test_what_ran_before_in_the_process_does_not_matter():
    Streams(0)
    first = torch.rand(8).tolist()
    torch.rand(100)
    Streams(0)
    assert torch.rand(8).tolist() == first
    Streams(1)
    assert torch.rand(8).tolist() != first


def weights(streams):
    with streams.initialising():
        return nn.Linear(4, 4).weight.tolist()


def test_first_weights_are_a_function_of_the_seed():
    streams = Streams(0)
    first = weights(streams)
    torch.rand(100)
    draws(streams.mix)
    assert weights(streams) == first
    assert weights(Streams(1)) != first


def test_initialising_shifts_nothing_that_comes_after():
    Streams(0)
    plain = torch.rand(8).tolist()
    weights(Streams(0))
    assert torch.rand(8).tolist() == plain


def fail(streams):
    with streams.initialising():
        torch.rand(3)
        raise RuntimeError("no memory")


def test_a_failed_initialisation_shifts_nothing_either():
    streams = Streams(0)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no memory"):
        fail(streams)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_run_draws_what_the_whole_one_would_have():
    streams = Streams(0)
    draws(streams.mix)
    torch.rand(3)
    state = streams.state_dict()
    told = draws(streams.mix), torch.rand(8).tolist()
    resumed = Streams(0)
    resumed.load_state_dict(state)
    assert (draws(resumed.mix), torch.rand(8).tolist()) == told


def test_a_saved_state_stays_as_it_was_saved():
    streams = Streams(0)
    state = streams.state_dict()
    before = {name: value.clone() for name, value in state.items() if value is not None}
    draws(streams.mix)
    torch.rand(8)
    assert all(torch.equal(state[name], value) for name, value in before.items())


@pytest.mark.gpu
def test_a_resumed_run_draws_the_same_on_the_device():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    streams = Streams(0)
    torch.rand(3, device="cuda")
    state = streams.state_dict()
    told = torch.rand(8, device="cuda").tolist()
    Streams(0).load_state_dict({name: value.cuda() for name, value in state.items()})
    assert torch.rand(8, device="cuda").tolist() == told

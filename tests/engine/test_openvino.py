"""What the OpenVINO engine's graph holds and how its 8 bits add up, on whatever processor this runs."""

from __future__ import annotations

import pytest
import torch

from a2n_video.engine.cpu import has_vnni
from a2n_video.engine.openvino import compiled, converted
from a2n_video.engine.select import has_openvino
from a2n_video.net.fuse import fuse
from a2n_video.net.graph import NARROW_WEIGHT_LEVELS, WEIGHT_LEVELS, ForCompiler
from a2n_video.net.model import A2N, A2NConfig, AttentionInAttentionBlock

# Not by importing it: plainly imported it reports its use, from child processes (see test_openvino_silent.py).
pytestmark = pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")
HEADS = {"paper": A2NConfig(n_blocks=1), "pixelshuffle": A2NConfig(n_features=16, n_blocks=1, head="pixelshuffle")}
SHAPE = (1, 3, 24, 32)


@pytest.mark.parametrize("config", HEADS.values(), ids=HEADS)
def test_the_graph_never_has_the_picture_itself_to_lower(config: A2NConfig) -> None:
    """In bfloat16 the skip would lose half a code of 8 bits: what the input goes through is the first convolution, and nothing else."""
    graph = converted(ForCompiler(fuse(A2N(config).eval())), SHAPE)
    readers = [reader.get_node().get_type_name() for reader in graph.input(0).get_target_inputs()]
    assert readers == ["Convolution"]
    assert "Interpolate" not in {node.get_type_name() for node in graph.get_ops()}


def loud_model() -> A2N:
    """One block whose 3x3 convolutions add up nothing but large products of one sign."""
    torch.manual_seed(3)
    model = A2N(A2NConfig(n_features=16, n_blocks=1, head="pixelshuffle")).eval().requires_grad_(False)
    block = model.AAB_trunk[0]
    assert isinstance(block, AttentionInAttentionBlock)
    model.conv_first.weight.abs_()
    block.conv_first.weight.abs_()
    for conv in (block.attention.k1, block.attention.k3, block.attention.k4, block.non_attention):
        conv.weight.fill_(0.05)
    return model


def test_eight_bits_add_up_without_being_cut_off() -> None:
    """A white frame, so that codes are high too; the largest error of sums cut off at 16 bits is half of the result."""
    model, white = loud_model(), torch.ones(SHAPE)
    levels = WEIGHT_LEVELS if has_vnni() else NARROW_WEIGHT_LEVELS
    with torch.inference_mode():
        expected = ForCompiler(fuse(model), int8=True, weight_levels=levels)(white)
    found = torch.from_numpy(compiled(model, SHAPE, "int8", 1).create_infer_request().infer([white.numpy()])[0])
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()

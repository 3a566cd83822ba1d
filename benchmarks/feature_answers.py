"""Who can do what: the answers of benchmarks/README.md's table.

Versions are those of `pyproject.toml` (group `peers`) and `constraints.txt`; after another one is
put there, the tests say what has changed, and what was read has to be read again.

zarr-python, TensorStore and a mapped file are storages. Order, ranks and resume are then torch's
own: a map-style data set under `DistributedSampler` and `DataLoader`, which is what counts here.
"""

from .features import SYSTEMS, Cell, Feature

_RANKS = "benchmarks/test_features.py::"
_FILES = "benchmarks/test_feature_files.py::"
_SAMPLER_ORDER = Cell(
    "yes",
    "torch's `DistributedSampler`",
    tested=f"{_RANKS}test_torchs_sampler_has_one_order_and_pads_it_by_repeats",
)
_SAMPLER_REPEATS = Cell(
    "partly",
    "`DistributedSampler` repeats or drops a few",
    tested=f"{_RANKS}test_torchs_sampler_has_one_order_and_pads_it_by_repeats",
)
_NO_STATE = Cell(
    "no",
    "torch's loader has no state",
    tested=f"{_RANKS}test_torchs_loader_has_no_state",
)
_OWN_TRANSFORM = "a transform of one's own"
_WRITTEN_RECORDS = Cell(
    "partly",
    _OWN_TRANSFORM,
    read="its interface: a record has what was written into it, no label definitions",
)
_OWN_CODE = Cell("partly", "code of one's own", read="its interface: numbers alone")


def _feature(name: str, question: str, *cells: Cell) -> Feature:
    return Feature(name, question, dict(zip(SYSTEMS, cells, strict=True)))


_DETERMINISM = _feature(
    "determinism",
    "Has a step of the same seed, epoch and global batch the same frames, on any number of ranks?",
    Cell(
        "yes",
        "a plan of seed and epoch",
        tested="train/test_workers.py::test_every_world_and_number_of_workers_yields_the_same",
    ),
    Cell(
        "partly",
        "on one number of ranks",
        tested=f"{_RANKS}test_orders_of_webdataset_and_litdata_are_of_one_number_of_ranks",
    ),
    Cell(
        "yes",
        "canonical nodes",
        tested=f"{_RANKS}test_steps_of_mosaic_are_the_same_on_any_number_of_ranks",
    ),
    Cell(
        "partly",
        "on one number of ranks",
        tested=f"{_RANKS}test_orders_of_webdataset_and_litdata_are_of_one_number_of_ranks",
    ),
    Cell(
        "yes",
        "shuffle, then `[rank::ranks]`",
        tested=f"{_RANKS}test_slices_of_grain_are_exact_and_uneven",
    ),
    _SAMPLER_ORDER,
    _SAMPLER_ORDER,
    _SAMPLER_ORDER,
    _SAMPLER_ORDER,
    Cell(
        "no",
        "each rank has its own order",
        tested=f"{_RANKS}test_ranks_that_permute_by_themselves_miss_episodes",
    ),
)

_EXACTLY_ONCE = _feature(
    "exactly-once",
    "Does every frame come once an epoch over all ranks, whatever their number?",
    Cell(
        "yes",
        "rows of padding have weight 0",
        tested=(
            "train/test_plan.py::test_every_row_comes_exactly_once_and_only_the_last_step_is_padded"
        ),
    ),
    Cell(
        "yes",
        "shards split by node",
        tested=f"{_RANKS}test_ranks_of_webdataset_share_shards_and_end_at_different_steps",
    ),
    Cell(
        "partly",
        "a few are repeated",
        tested=f"{_RANKS}test_steps_of_mosaic_are_the_same_on_any_number_of_ranks",
    ),
    Cell(
        "partly",
        "a few are dropped",
        tested=f"{_RANKS}test_ranks_of_litdata_are_even_because_frames_are_dropped",
    ),
    Cell(
        "yes",
        "`[rank::ranks]`",
        tested=f"{_RANKS}test_slices_of_grain_are_exact_and_uneven",
    ),
    Cell(
        "yes",
        "`split_dataset_by_node`",
        tested=f"{_RANKS}test_splits_of_datasets_are_exact_and_uneven",
    ),
    _SAMPLER_REPEATS,
    _SAMPLER_REPEATS,
    _SAMPLER_REPEATS,
    Cell(
        "no",
        "episodes are missed, others repeated",
        tested=f"{_RANKS}test_ranks_that_permute_by_themselves_miss_episodes",
    ),
)

_ELASTIC_RESUME = _feature(
    "elastic resume",
    "Does an epoch that was stopped go on with the frames that are left, on another number of"
    " ranks?",
    Cell(
        "yes",
        "at any step",
        tested="train/test_workers.py::test_resumes_on_any_world_are_bit_identical",
    ),
    Cell(
        "no",
        "no state",
        tested=f"{_RANKS}test_webdataset_has_no_state",
    ),
    Cell(
        "yes",
        "`sample_in_epoch`",
        tested=f"{_RANKS}test_mosaic_goes_on_with_the_frames_that_are_left",
    ),
    Cell(
        "partly",
        "at a global batch that both have; `drop_last`",
        tested=f"{_RANKS}test_litdata_goes_on_with_the_frames_that_are_left",
    ),
    Cell(
        "partly",
        "`ElasticIterator`: map-style, no filter, the rest dropped",
        tested=f"{_RANKS}test_grain_goes_on_with_the_frames_that_are_left",
    ),
    Cell(
        "no",
        "state is of one number of ranks",
        tested=f"{_RANKS}test_a_state_of_datasets_is_of_one_number_of_ranks",
    ),
    _NO_STATE,
    _NO_STATE,
    _NO_STATE,
    _NO_STATE,
)

_UNEVEN_RANKS = _feature(
    "uneven ranks",
    "If frames do not divide among ranks: do all make the same number of steps, and is nothing"
    " dropped or repeated without a mark?",
    Cell(
        "yes",
        "rows of padding have weight 0",
        tested="train/test_ranks.py::test_ranks_train_what_one_process_trains",
    ),
    Cell(
        "partly",
        "`resampled=True`: even, without epochs",
        tested=f"{_RANKS}test_ranks_of_webdataset_share_shards_and_end_at_different_steps",
    ),
    Cell(
        "partly",
        "even, by repeats without a mark",
        tested=f"{_RANKS}test_steps_of_mosaic_are_the_same_on_any_number_of_ranks",
    ),
    Cell(
        "partly",
        "even, by dropping",
        tested=f"{_RANKS}test_ranks_of_litdata_are_even_because_frames_are_dropped",
    ),
    Cell(
        "partly",
        "`ElasticIterator`: even, by dropping",
        tested=f"{_RANKS}test_grain_goes_on_with_the_frames_that_are_left",
    ),
    _SAMPLER_REPEATS,
    _SAMPLER_REPEATS,
    _SAMPLER_REPEATS,
    _SAMPLER_REPEATS,
    Cell(
        "no",
        "ranks end at different steps",
        tested=f"{_RANKS}test_ranks_that_permute_by_themselves_miss_episodes",
    ),
)

_FLIPPED = f"{_FILES}test_a_flipped_bit_in_a_local_file_of_a_peer"
_INTEGRITY = _feature(
    "integrity",
    "Is a flipped bit in a local file an error when it is read, and no frame?",
    Cell(
        "yes",
        "CRC-32C a block; `verify`",
        tested=(
            "train/test_stream.py::test_a_flipped_bit_stops_the_stream_and_names_shard_and_sample"
        ),
    ),
    Cell("no", "delivered", tested=f"{_FILES}test_webdataset_delivers_a_flipped_bit"),
    Cell(
        "partly",
        "hashes of shards, on download alone",
        tested=f"{_FILES}test_hashes_of_mosaic_are_checked_on_download_alone",
    ),
    Cell("no", "delivered", tested=_FLIPPED),
    Cell("yes", "a hash a chunk of the file", tested=_FLIPPED),
    Cell("no", "delivered", tested=_FLIPPED),
    Cell(
        "partly",
        "with a `crc32c` codec; none by default",
        tested=f"{_FILES}test_zarr_checks_what_a_codec_lets_it_check",
    ),
    Cell(
        "partly",
        "with a `crc32c` codec; none by default",
        tested=f"{_FILES}test_zarr_checks_what_a_codec_lets_it_check",
    ),
    Cell("no", "delivered", tested=f"{_FILES}test_flat_files_and_pt_files_deliver_a_flipped_bit"),
    Cell("no", "delivered", tested=f"{_FILES}test_flat_files_and_pt_files_deliver_a_flipped_bit"),
)

_URLS = f"{_FILES}test_peers_know_these_kinds_of_urls"
_REMOTE = _feature(
    "remote",
    "Does it read from object stores and over HTTP?",
    Cell(
        "yes",
        "S3, GCS, HTTP, HF",
        tested="store/test_remote_rows.py::test_everything_reads_as_at_home",
    ),
    Cell("yes", "HTTP, GCS, HF; S3 through `pipe:`", tested=_URLS),
    Cell("yes", "S3, GCS, OCI, Azure, HF", read="`streaming/base/storage/download.py`"),
    Cell("yes", "S3, GCS, Azure, HF", tested=_URLS),
    Cell("partly", "`gs://`, or a mounted bucket", read="array_record's pull request 172"),
    Cell("yes", "HF, fsspec, HTTP; streaming", read="its docs, `streaming=True`"),
    Cell("yes", "fsspec, obstore", read="its docs, `zarr.storage`"),
    Cell("yes", "S3, GCS, HTTP", tested=f"{_FILES}test_tensorstore_has_drivers_of_object_stores"),
    Cell("no", "a mounted bucket at best", read="`numpy.memmap`: a local file"),
    Cell("no", "a mounted bucket at best", read="`torch.load`: a file, read whole"),
)

_BF16 = _feature(
    "bf16",
    "Is a bfloat16 frame written and read as bfloat16, bit for bit, without a cast by its user?",
    Cell(
        "yes",
        "`bfloat16`",
        tested="store/test_bfloat16.py::test_all_bit_patterns_survive",
    ),
    Cell(
        "partly",
        "pickled as `.pth`; raw bytes",
        tested=f"{_FILES}test_webdataset_pickles_bfloat16_and_has_no_array_of_it",
    ),
    Cell("partly", "raw bytes", tested=f"{_FILES}test_mosaic_has_bytes_and_no_bfloat16"),
    Cell(
        "partly",
        "as `int16`, or raw bytes",
        tested=f"{_FILES}test_litdata_has_int16_and_no_bfloat16",
    ),
    Cell("partly", "raw bytes", tested=f"{_FILES}test_records_of_grain_are_bytes"),
    Cell(
        "partly",
        "as `uint16`; tensors become float32",
        tested=f"{_FILES}test_datasets_makes_bfloat16_float32",
    ),
    Cell(
        "partly",
        "a dtype that others register, as laughstore does",
        tested=f"{_FILES}test_zarr_has_bfloat16_from_laughstore",
    ),
    Cell("yes", "`bfloat16`", tested=f"{_FILES}test_tensorstore_has_bfloat16"),
    Cell(
        "partly",
        "raw words, named by `ml_dtypes`; `.npy` forgets",
        tested=f"{_FILES}test_npy_forgets_what_its_words_were_and_pt_does_not",
    ),
    Cell(
        "yes",
        "`torch.bfloat16`",
        tested=f"{_FILES}test_npy_forgets_what_its_words_were_and_pt_does_not",
    ),
)

_LABELS = _feature(
    "label at read time",
    "Are other labels (kind, shift, lead, speaker) another argument, without writing anything?",
    Cell(
        "yes",
        "`label=`, of events and turns",
        tested=f"{_FILES}test_another_label_is_another_argument_and_writes_nothing",
    ),
    _WRITTEN_RECORDS,
    _WRITTEN_RECORDS,
    _WRITTEN_RECORDS,
    _WRITTEN_RECORDS,
    _WRITTEN_RECORDS,
    _OWN_CODE,
    _OWN_CODE,
    _OWN_CODE,
    Cell(
        "partly",
        "made when a file is loaded, in code",
        read="the scripts: labels lie in files beside",
    ),
)

FEATURES = (
    _DETERMINISM,
    _EXACTLY_ONCE,
    _ELASTIC_RESUME,
    _UNEVEN_RANKS,
    _INTEGRITY,
    _REMOTE,
    _BF16,
    _LABELS,
)
"""Rows of the table."""

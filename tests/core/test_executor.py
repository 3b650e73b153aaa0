"""Three ways, the same bytes: this process, its workers, and a cluster of which one is killed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

import fakes
from sounds import make_voice, make_whisper, write
from voxadapt.asr.voice_prints import Embedder
from voxadapt.asr.whisper import Transcriber
from voxadapt.codec.extract import decode_codes, extract_codes
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.executor import LOCAL, Local, RayData, _Failure, _Parcel, _Worker
from voxadapt.core.params import ExecutorParams, ScoreParams
from voxadapt.data.manifest import Utterance
from voxadapt.generation.synthesis import Voice, speak_candidate
from voxadapt.model.load import load_speech_tokenizer, load_tts
from voxadapt.scoring.rows import EvalClip, Sentence, serialise_rows
from voxadapt.scoring.score_clips import score_clips

PROJECT = Path(__file__).parents[2]
RATE_HZ, HOP = fakes.SAMPLE_RATE_HZ, fakes.HOP
MISSING = "ray is not installed: pip install -c constraints.txt -e '.[ray]'"


def cluster(**values: Any) -> RayData:
    threads = torch.get_num_threads()
    return RayData(ExecutorParams(kind="ray", **values), num_threads=threads)


@pytest.fixture(scope="module")
def workers() -> Iterator[RayData]:
    """A cluster on this machine, with room for two workers and a reader."""
    ray = pytest.importorskip("ray", reason=MISSING)
    pytest.importorskip("ray.data", reason=MISSING)
    this = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(this)  # no worker imports the tests
    with pytest.MonkeyPatch.context() as patch:
        ours = [str(PROJECT / "src"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in ours if path))
        patch.setenv("RAY_AUTH_TOKEN", "a token for tests, " * 3)  # or Ray writes one to the home
        found = cluster()
        for _ in range(3):  # a loaded machine misses the seconds that Ray gives its parts to start
            try:
                found._connect()
                break
            except UserError:
                ray.shutdown()
        yield found
        ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(this)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def note(path: Path, line: object) -> int:
    """Append a line in one piece, and return how many there are."""
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    return len(lines(path))


def die() -> None:
    """End this process as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def make_corpus(root: Path, count: int) -> list[Utterance]:
    rows = []
    for number in range(count):
        duration_s = 0.5 + 0.11 * number
        fakes.make_wav(root / f"clips/c{number}.wav", duration_s, number)
        rows.append(fakes.make_utterance(f"c{number}", "x", duration_s=duration_s))
    return rows


class Loudness:
    """A codec whose only code is how loud a frame is; it notes its batches and dies at some."""

    device = "cpu"

    def __init__(self, notes: Path, deadly: int | None = None) -> None:
        self.notes, self.deadly = notes, deadly

    def get_input_sample_rate(self) -> int:
        return RATE_HZ

    def get_encode_downsample_rate(self) -> int:
        return HOP

    def encode(self, waves: list[Any], sr: int) -> Any:
        if self.deadly is not None and note(self.notes, len(waves)) >= self.deadly:
            die()
        levels = [np.abs(wave.reshape(-1, HOP)).mean(axis=1) for wave in waves]
        codes = [torch.from_numpy((1000 * level[:, None]).astype(np.int64)) for level in levels]
        return SimpleNamespace(audio_codes=codes)


# --- without a cluster ---------------------------------------------------------------------------


def test_this_process_takes_one_shard_after_another() -> None:
    seen = []

    def read(shard: int) -> int:
        seen.append(shard)
        return shard + 1

    found = LOCAL.run([10, 20, 30], read, lambda model, material: model * material, 2)
    assert next(found) == (0, 22) and seen == [10]
    assert list(found) == [(1, 42), (2, 62)]


# --- workers of this machine ---------------------------------------------------------------------


def as_it_is(shard: Any) -> Any:
    return shard


def times(model: int, shard: int) -> tuple[int, int]:
    return model * shard, os.getpid()


def two() -> int:
    return 2


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", [1, 2], ids=["forked", "fresh"])
def test_workers_give_each_shard_once(num_threads: int) -> None:
    workers = Local(2, num_threads)
    found = dict(workers.run([5, 6, 7, 8], as_it_is, times, 2, two))
    assert {number: product for number, (product, _) in found.items()} == {
        0: 10, 1: 12, 2: 14, 3: 16,
    }  # fmt: skip
    assert 0 < len({pid for _, pid in found.values()} - {os.getpid()}) <= 2
    assert list(workers.run([], as_it_is, times, 2)) == []
    assert list(workers.run([5], as_it_is, times, 2)) == [(0, (10, os.getpid()))]  # no worker


@pytest.mark.slow
def test_the_longest_shards_are_handed_out_first() -> None:
    assert next(Local(2).run(list(range(9)), as_it_is, times, 1))[0] >= 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        UserError(Problem("here", "this", "that", "Do."), "A title."),
        MemoryError("none left"),
        FileNotFoundError(2, "No such file", "clip.wav"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("step", ["read", "work"])
def test_workers_raise_what_a_step_raised(error: Exception, step: str) -> None:
    def fail(*_: Any) -> Any:
        raise error

    steps = (fail, times) if step == "read" else (as_it_is, fail)
    with pytest.raises(type(error)) as caught:
        list(Local(2).run([1, 2, 3], *steps, 2))
    assert str(caught.value) == str(error) and "In a worker process" in caught.value.__notes__[0]
    assert vars(caught.value).get("problems") == vars(error).get("problems")


@pytest.mark.slow
def test_an_exception_that_cannot_be_sent_is_told_as_text() -> None:
    def fail(*_: Any) -> Any:
        class Odd(Exception):
            """Known in this function alone."""

        raise Odd("lost")

    with pytest.raises(RuntimeError, match="lost"):
        list(Local(2).run([1, 2], as_it_is, fail, 2))


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_with_advice() -> None:
    def fall(_: int, shard: int) -> int:
        if shard == 3:
            die()
        return shard

    with pytest.raises(UserError, match=r"executor\.num_workers.*signal 9.*goes on where it was"):
        list(Local(2).run([1, 2, 3, 4, 5], as_it_is, fall, 2))


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pids: list[int]) -> bool:
    for _ in range(100):
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_no_worker_outlives_a_run_that_is_left_or_killed(tmp_path: Path) -> None:
    running = Local(2).run([1, 2, 3, 4], as_it_is, times, 2)
    _, (_, pid) = next(running)
    assert is_alive(pid)
    running.close()
    assert ended([pid])

    notes = tmp_path / "pids"
    script = (
        "import os, time\nfrom voxadapt.core.executor import Local\n"
        "def sleep(model, shard):\n"
        f"    with open({str(notes)!r}, 'a') as stream: stream.write(f'{{os.getpid()}}\\n')\n"
        "    time.sleep(600)\n"
        "list(Local(2).run([1, 2], str, sleep, 0))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    while len(lines(notes)) < 2:
        assert parent.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    assert ended([int(line) for line in lines(notes)])


@pytest.mark.slow
def test_workers_make_the_same_codes_and_sound(tmp_path: Path) -> None:
    fakes.make_codec(tmp_path / "speech_tokenizer")
    rows, codec = make_corpus(tmp_path, 9), load_speech_tokenizer(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # no thread of torch is started, so that the fork is safe
    try:
        one, two = (
            extract_codes(rows, codec, 3.0, tmp_path / name, "codec", tmp_path, executor=executor)
            for name, executor in (("one", LOCAL), ("two", Local(2)))
        )
        assert files(tmp_path / "one") == files(tmp_path / "two") and len(one) == 9
        plain, shared = decode_codes(one, codec), decode_codes(two, codec, Local(2))
    finally:
        torch.set_num_threads(before)
    assert list(plain) == list(shared)
    assert all((plain[name] == shared[name]).all() for name in plain)


def test_no_stage_depends_on_where_it_runs() -> None:
    """Results are the same bytes: another executor must not run anything again."""
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    listed = [str(key) for stage in stages.values() for key in stage.get("params", [])]
    assert listed and not [key for key in listed if key.startswith("executor")]
    assert "src/voxadapt/core/executor.py" not in str(stages)


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:port", ""])
def test_an_address_is_a_machine_and_a_port(address: str) -> None:
    with pytest.raises(ValidationError, match="address"):
        ExecutorParams(address=address)
    assert ExecutorParams(address="10.0.0.1:6379").address and ExecutorParams(address="auto")


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "voxadapt\[ray\]"'):
        list(cluster().run([1], abs, lambda model, value: value, None))
    assert list(cluster().run([], abs, lambda model, value: value, None)) == []


def test_a_small_cluster_is_refused_before_anything_waits() -> None:
    two = RayData(ExecutorParams(kind="ray", num_workers=2), gpus_per_worker=0.5)
    two._require_room({"CPU": 3.0, "GPU": 1.0})
    with pytest.raises(UserError) as caught:
        two._require_room({"CPU": 2.0})
    assert [p.expected for p in caught.value.problems] == [
        "a cluster with 3 CPU, one to read", "a cluster with 1 GPU",
    ]  # fmt: skip


def test_what_a_step_raises_is_told_as_it_was(tmp_path: Path) -> None:
    def fail(*_: Any) -> Any:
        raise errors.pop()

    def found(work: Callable[..., Any], load: Callable[..., Any], value: Any = 1) -> Exception:
        worker = _Worker(os.getcwd(), torch.get_num_threads(), work, load)
        failure = worker({"number": 3, "parcel": _Parcel(value)})["parcel"].value
        assert isinstance(failure, _Failure)
        return failure.as_error()

    errors: list[Exception] = [KeyError("odd"), MemoryError("none left")]
    lack = found(abs, fail)
    assert isinstance(lack, MemoryError) and "none left" in str(lack)
    odd = found(fail, dict)
    assert isinstance(odd, RuntimeError) and "in fail" in str(odd) and "KeyError: 'odd'" in str(odd)
    problem = Problem("here", "this", "that", "Do.")
    read = found(fail, dict, _Failure.of(UserError(problem, "A title.")))  # `work` is not asked
    assert isinstance(read, UserError)
    assert (read.problems, read.title) == ((problem,), "A title.")


# --- on a cluster --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'voxadapt[ray]'")
    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "")
    with pytest.raises(UserError, match=r"executor\.address: auto.*ray start --head"):
        list(cluster(address="auto").run([1], abs, lambda model, value: value, None))


@pytest.mark.slow
def test_codes_are_the_same_bytes_though_a_worker_is_killed(
    workers: RayData, tmp_path: Path
) -> None:
    fakes.make_codec(tmp_path / "speech_tokenizer")
    rows, killed = make_corpus(tmp_path, 16), tmp_path / "killed"

    def load() -> Any:
        """Load the codec; whoever takes the third batch dies of it."""
        codec = load_speech_tokenizer(tmp_path)
        note(tmp_path / "loads", os.getpid())
        encode = codec.encode

        def counted(waves: Any, sr: int) -> Any:
            if note(tmp_path / "batches", os.getpid()) >= 3 and not killed.exists():
                note(killed, os.getpid())
                die()
            return encode(waves, sr=sr)

        codec.encode = counted
        return codec

    def extract(name: str, **options: Any) -> Any:
        codec = load_speech_tokenizer(tmp_path)
        return extract_codes(rows, codec, 3.0, tmp_path / name, "codec", tmp_path, **options)

    local, found = extract("local"), extract("ray", executor=workers, load=load)
    assert list(found) == list(local) and all((found[name] == local[name]).all() for name in local)
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    loads, dead = lines(tmp_path / "loads"), lines(killed)
    assert dead and set(dead) <= set(loads) and len(lines(tmp_path / "batches")) > 8
    assert len(loads) == len(set(loads)) >= 2  # a process loads once, the replacement too


@pytest.mark.slow
def test_workers_that_die_too_often_end_the_run_and_the_next_goes_on(
    workers: RayData, tmp_path: Path
) -> None:
    rows, notes = make_corpus(tmp_path, 16), tmp_path / "batches"

    def extract(name: str, codec: Loudness, **options: Any) -> Any:
        return extract_codes(rows, codec, 3.0, tmp_path / name, "codec", tmp_path, **options)

    whole = extract("whole", Loudness(notes))
    with pytest.raises(UserError, match=r"executor\.max_losses: 1.*lost more than 1 times"):
        extract("lost", Loudness(notes, deadly=6), executor=cluster(max_losses=1))
    kept = len(files(tmp_path / "lost"))
    assert 0 < kept < len(rows)

    notes.unlink()
    again = extract("lost", Loudness(notes, deadly=1000))  # in this process: nothing differs
    assert sum(map(int, lines(notes))) == len(rows) - kept
    assert all((again[name] == whole[name]).all() for name in whole)
    assert files(tmp_path / "lost") == files(tmp_path / "whole")


@pytest.mark.slow
def test_bad_clips_on_a_cluster_are_named_together(workers: RayData, tmp_path: Path) -> None:
    rows = make_corpus(tmp_path, 6)
    for number in (1, 4):
        (tmp_path / f"clips/c{number}.wav").write_bytes(b"no sound")
    with pytest.raises(UserError, match="cannot be encoded") as caught:
        extract_codes(
            rows, Loudness(tmp_path / "n"), 1.0, tmp_path / "w", "codec", tmp_path,
            executor=cluster(num_workers=1),
        )  # fmt: skip
    assert [p.where.split()[0] for p in caught.value.problems] == ["c1", "c4"]


@pytest.mark.slow
def test_speech_and_scores_are_the_same_bytes(workers: RayData, tmp_path: Path) -> None:
    one = cluster(num_workers=1)
    shape = fakes.TinyShape(speakers=(("aria", 950),))
    folder = fakes.make_tts(tmp_path / "model", shape)

    def load() -> Any:
        tts = load_tts(folder)
        tts.model.tts_model_type = "custom_voice"
        return tts

    tts = load()
    sentences = [
        Sentence(text_id=f"s{n}", text=text, split="selection")
        for n, text in enumerate(["one two three", "hi", "four five", "six seven eight nine"])
    ]
    params = ScoreParams(takes=2, batch_size=2, max_seconds_per_token=0.05, min_speech_s=0.5)

    def speak(name: str, **options: Any) -> list[EvalClip]:
        return speak_candidate(
            tts, "base", sentences, Voice(speaker="aria"), params,
            out_dir=tmp_path / name / "wavs", work_dir=tmp_path / name / "work",
            root=tmp_path / name, checkpoint_sha="sha", lang="en", **options,
        )  # fmt: skip

    spoken = speak("local")
    assert {clip.status for clip in spoken} == {"ok"} and len(spoken) == 8
    assert speak("ray", executor=one, load=load) == spoken
    assert files(tmp_path / "ray") == files(tmp_path / "local")

    for number in range(62):  # two groups of embeddings
        voice = make_voice(1.0 + 0.01 * number, 110 + number, number)
        write(tmp_path / f"local/v{number}.wav", voice)
    clips = [
        *spoken,
        *(
            spoken[0].model_copy(update={"text_id": f"v{n:03d}", "wav": f"v{n}.wav", "take": 0})
            for n in range(64)  # the last two are not there
        ),
    ]
    whisper = make_whisper(tmp_path / "tiny.pt")

    def score(name: str, **options: Any) -> str:
        transcriber = Transcriber(whisper, "en", cache_dir=tmp_path / name / "transcripts")
        rows = score_clips(
            clips, transcriber, Embedder(), None, None, params, root=tmp_path / "local", **options
        )
        return serialise_rows(rows)

    expected = score("a")
    assert expected.count('"failed"') == 2
    assert score("b", executor=one, work_dir=tmp_path / "b") == expected
    assert files(tmp_path / "b/transcripts") == files(tmp_path / "a/transcripts")

    sizes = []

    class Counting:
        def run(self, shards: Any, *steps: Any) -> Any:
            sizes.append([len(shard) for shard in shards])
            return LOCAL.run(shards, *steps)

    assert score("b", executor=Counting(), work_dir=tmp_path / "b") == expected
    assert sizes == [[8], []]  # one group is kept, the other has clips to look for; all was heard


# --- the commands of the page --------------------------------------------------------------------


def ray_commands() -> list[list[str]]:
    """Every `ray …` of docs/scale.md, as words."""
    text = (PROJECT / "docs" / "scale.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    found = []
    for line in "".join(blocks).splitlines():
        words = shlex.split(line, comments=True)
        if "ray" in words:
            found.append(words[words.index("ray") + 1 :])
    return found


@pytest.mark.slow
def test_ray_takes_the_commands_of_the_page() -> None:
    commands = ray_commands()
    assert {words[0] for words in commands} == {"start", "stop", "symmetric-run"}
    pytest.importorskip("ray", reason=MISSING)
    from ray.scripts.scripts import cli
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    for name, *words in commands:
        if name == "symmetric-run":
            split = words.index("--")
            assert words[split + 1] in ("dvc", "voxadapt"), words
            curate_and_validate_ray_start_args(words[:split])
        cli.commands[name].make_context(name, list(words))

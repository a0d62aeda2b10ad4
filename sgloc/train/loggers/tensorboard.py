"""TensorBoard's event files."""

import contextlib
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from sgloc.errors import ConfigError
from sgloc.train.loggers.base import Logger, Record, scalars


class TensorBoard(Logger):
    """TensorBoard's event files in a folder: curves by the names that W&B has, and pictures.

    Each event is on disk at once, so that a kill leaves no gap behind; and an error is raised where it happens, where
    torch's SummaryWriter would have a thread of its own print a traceback and write nothing more. After one, a new file
    is begun, for nothing can be read behind half an event.

    Args:
        folder: a local one.
        resumed_step: at which the run goes on; TensorBoard forgets what the files have of later steps, which will come
            again.

    Raises:
        ConfigError: if TensorBoard is not installed.
    """

    name = "TensorBoard"

    def __init__(self, folder: str, resumed_step: int) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise ConfigError(
                f"log.tensorboard needs TensorBoard, which cannot be imported ({error}); "
                "pip install 'sgloc[tensorboard]', or leave the option out"
            ) from error
        self.events, self.summaries, self.new_writer = event_pb2, summary_pb2, RecordWriter
        self.folder = Path(folder)
        self.writer: Any = None
        status = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(resumed_step + 1, session_log=status)

    def log(self, record: Record) -> None:
        """Write a record's numbers."""
        values = [self.summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record).items()]
        self._write(record["step"], summary=self.summaries.Summary(value=values))

    def show(self, name: str, step: int, png: bytes) -> None:
        """Write a picture."""
        # Where every PNG has its size.
        width, height = struct.unpack(">II", png[16:24])
        image = self.summaries.Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
        self._write(step, summary=self.summaries.Summary(value=[self.summaries.Summary.Value(tag=name, image=image)]))

    def _write(self, step: int, **content: object) -> None:
        try:
            if self.writer is None:
                self._begin_file()
            self._append(step=step, **content)
        except OSError:
            self._end_file()
            raise

    def _begin_file(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the sequence of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path, self.num_events = self.folder / name, 0
        self.writer = self.new_writer(self.path.open("wb"))
        self._append(file_version="brain.Event:2")

    def _append(self, **content: object) -> None:
        self.writer.write(self.events.Event(wall_time=time.time(), **content).SerializeToString())
        self.writer.flush()
        self.num_events += 1

    def _end_file(self) -> None:
        writer, self.writer = self.writer, None
        if writer is None:
            return
        if self.num_events == 0:
            # Or a disk that stays full would end up with a file a step.
            self.path.unlink()
        with contextlib.suppress(OSError):
            writer.close()

    def close(self) -> None:
        """Close the file."""
        self._end_file()

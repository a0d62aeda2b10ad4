"""TensorBoard's event files."""

import io
import os
import socket
import struct
import time
from pathlib import Path

from sgloc.errors import ConfigError
from sgloc.train.loggers.base import Logger, Record, scalars


class TensorBoard(Logger):
    """TensorBoard's event files in a folder: curves by the names that W&B has, and pictures.

    Each event is on disk at once, so that a kill leaves no gap behind; and an error is raised where it happens, where
    torch's SummaryWriter would have a thread of its own print a traceback and write nothing more. Half an event, which
    a full disk leaves, is cut off before the next one is written: nothing could be read behind it.

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
        self.event, self.summary, self.record_writer = event_pb2.Event, summary_pb2.Summary, RecordWriter
        Path(folder).mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the sequence of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path, self.size = Path(folder) / name, 0
        self._write(file_version="brain.Event:2")
        self._write(step=resumed_step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def log(self, record: Record) -> None:
        """Write a record's numbers."""
        values = [self.summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record).items()]
        self._write(step=record["step"], summary=self.summary(value=values))

    def show(self, name: str, step: int, png: bytes) -> None:
        """Write a picture."""
        # Where every PNG has its size.
        width, height = struct.unpack(">II", png[16:24])
        image = self.summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
        self._write(step=step, summary=self.summary(value=[self.summary.Value(tag=name, image=image)]))

    def _write(self, **content: object) -> None:
        """Append an event to the file."""
        event = io.BytesIO()
        self.record_writer(event).write(self.event(wall_time=time.time(), **content).SerializeToString())
        with self.path.open("ab") as stream:
            start = min(stream.tell(), self.size)
            stream.truncate(start)
            stream.write(event.getvalue())
        self.size = start + event.tell()

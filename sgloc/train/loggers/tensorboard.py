"""The logger for TensorBoard's event files."""

import io
import os
import socket
import struct
import time
from pathlib import Path

from sgloc.errors import ConfigError
from sgloc.train.loggers.base import Logger, Record, scalars


class TensorBoard(Logger):
    """Writes curves, under the same names as in W&B, and pictures to TensorBoard's event files.

    Each event is written to disk immediately, so that a kill leaves no gap, and a write error is raised to the caller;
    in torch's SummaryWriter, a background thread would print a traceback and stop writing. A partial event left by a
    full disk is truncated before the next write, since TensorBoard could not read past it.

    Args:
        folder: local folder for the files.
        resumed_step: step at which the run starts or resumes; TensorBoard then discards the events of later steps,
            which will be logged again.

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
                "run pip install 'sgloc[tensorboard]', or unset the option"
            ) from error
        self.event, self.summary, self.record_writer = event_pb2.Event, summary_pb2.Summary, RecordWriter
        Path(folder).mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names, hence the time with leading zeros.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path, self.size = Path(folder) / name, 0
        self._write(file_version="brain.Event:2")
        self._write(step=resumed_step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def log(self, record: Record) -> None:
        """Write the numbers of a record."""
        values = [self.summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record).items()]
        self._write(step=record["step"], summary=self.summary(value=values))

    def show(self, name: str, step: int, png: bytes) -> None:
        """Write a picture."""
        # The width and height in the IHDR chunk, which comes first in every PNG.
        width, height = struct.unpack(">II", png[16:24])
        image = self.summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
        self._write(step=step, summary=self.summary(value=[self.summary.Value(tag=name, image=image)]))

    def _write(self, **content: object) -> None:
        """Append an event to the file, over any partial event."""
        event = io.BytesIO()
        self.record_writer(event).write(self.event(wall_time=time.time(), **content).SerializeToString())
        with self.path.open("ab") as stream:
            start = min(stream.tell(), self.size)
            stream.truncate(start)
            stream.write(event.getvalue())
        self.size = start + event.tell()

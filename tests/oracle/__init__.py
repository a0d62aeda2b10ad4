"""A slow, literal reading of the specification, against which the library is tested."""

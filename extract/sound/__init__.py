"""Sound: files of any format, checked by their headers, streamed as 24 kHz mono."""

"""Moving values between processes: the codec, references, and the channels they travel on."""

"""The gRPC skin: nothing but this package knows gRPC and protobuf."""

"""A gRPC server without generated code: its messages are bytes."""

import asyncio
import sys

import door
import grpc


async def answer(request, context):
    """Answer one call."""
    return door.take_turn(request.decode()).encode()


async def main():
    """Serve until the process ends."""
    server = grpc.aio.server()
    handlers = {"Turn": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Shop", handlers)])
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())

"""Greets by name, and counts."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_reflection.v1alpha import reflection

import helloworld_pb2 as pb
import helloworld_pb2_grpc as pb_grpc


class Greeter(pb_grpc.HelloworldServicer):
    def Call(self, request, context):
        return pb.Response(msg=f"Hello {request.name}")

    def Stream(self, request, context):
        for count in range(1, request.count + 1):
            yield pb.StreamResponse(count=count)


def main():
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    pb_grpc.add_HelloworldServicer_to_server(Greeter(), server)
    services = pb.DESCRIPTOR.services_by_name["Helloworld"].full_name, reflection.SERVICE_NAME
    reflection.enable_server_reflection(services, server)
    port = server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', 0)}")
    server.start()
    print(f"helloworld listens on 127.0.0.1:{port}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=10))
    server.wait_for_termination()


if __name__ == "__main__":
    main()

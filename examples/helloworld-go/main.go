// Greets by name, and counts.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	pb "helloworld/proto"
)

type greeter struct {
	pb.UnimplementedHelloworldServer
}

func (greeter) Call(_ context.Context, in *pb.Request) (*pb.Response, error) {
	return &pb.Response{Msg: fmt.Sprintf("Hello %s", in.GetName())}, nil
}

func (greeter) Stream(in *pb.StreamRequest, out grpc.ServerStreamingServer[pb.StreamResponse]) error {
	for count := int64(1); count <= in.GetCount(); count++ {
		if err := out.Send(&pb.StreamResponse{Count: count}); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterHelloworldServer(server, greeter{})
	reflection.Register(server)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-stop
		server.GracefulStop()
	}()

	log.Printf("helloworld listens on %s", listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

// A client of moln whose stubs are generated from protos/: lists the hosts, creates a VM, waits until it runs, prints
// it, and terminates it. It needs nothing of moln but the contract, an address and a token.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	compute "example.com/moln-client/gen/moln/compute/v1"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, explain(err))
		os.Exit(1)
	}
}

func run() error {
	connection, err := connect(setting("MOLN_ENDPOINT", "127.0.0.1:2632"))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if ctx, err = authorised(ctx, setting("MOLN_TOKEN_FILE", "../../.moln/api/admin.token")); err != nil {
		return err
	}
	if err := listHosts(ctx, compute.NewHostServiceClient(connection)); err != nil {
		return err
	}
	return runOneVM(ctx, compute.NewVmServiceClient(connection))
}

// listHosts prints one line for each host.
func listHosts(ctx context.Context, hosts compute.HostServiceClient) error {
	reply, err := hosts.ListHosts(ctx, &compute.ListHostsRequest{})
	if err != nil {
		return err
	}
	for _, host := range reply.GetHosts() {
		view := host.GetView()
		fmt.Printf("host %d %s %s: %d VMs, %d of %d MiB used\n", host.GetId(), host.GetSpec().GetName(), view.GetState(),
			view.GetVms(), view.GetMemoryMibUsed(), view.GetMemoryMibTotal())
	}
	return nil
}

// runOneVM creates a VM, waits until it runs, prints it, and terminates it whatever happened before.
func runOneVM(ctx context.Context, vms compute.VmServiceClient) (err error) {
	// A repeated call with the same request id answers the first result: it is safe to retry.
	vm, err := vms.CreateVm(ctx, &compute.CreateVmRequest{
		Name:      "from-go",
		RequestId: rand.Text(),
		Template:  &compute.VmTemplate{Vcpus: 1, MemoryMib: 128, Labels: map[string]string{"example": "go"}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, terminate(ctx, vms, vm.GetId())) }()
	vm, err = wait(ctx, vms, vm.GetId(), compute.VmState_VM_STATE_RUNNING)
	if err != nil {
		return err
	}
	view := vm.GetView()
	fmt.Printf("vm %d %s %s on %s, address %s\n", vm.GetId(), vm.GetSpec().GetName(), view.GetState(), view.GetHost(), view.GetIpv4())
	return nil
}

// terminate ends a VM for good and returns when nothing of it is left.
func terminate(ctx context.Context, vms compute.VmServiceClient, id uint32) error {
	if _, err := vms.TerminateVm(ctx, &compute.TerminateVmRequest{Id: id, IsHard: true}); err != nil {
		return err
	}
	// A VM that is gone already is not found.
	if _, err := wait(ctx, vms, id, compute.VmState_VM_STATE_DONE); err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	fmt.Printf("vm %d is gone\n", id)
	return nil
}

func wait(ctx context.Context, vms compute.VmServiceClient, id uint32, state compute.VmState) (*compute.Vm, error) {
	return vms.WaitVm(ctx, &compute.WaitVmRequest{Id: id, State: state, Timeout: durationpb.New(time.Minute)})
}

// connect dials the cloud: by TLS where MOLN_CA_FILE names the certificate of its authority, else in clear (loopback).
func connect(endpoint string) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if file := os.Getenv("MOLN_CA_FILE"); file != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(file, ""); err != nil {
			return nil, err
		}
	}
	return grpc.NewClient(endpoint, grpc.WithTransportCredentials(transport))
}

// authorised adds the token in the file to every call that is made with the context.
func authorised(ctx context.Context, tokenFile string) (context.Context, error) {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token))), nil
}

// explain says what went wrong; moln's errors carry a reason of a closed list, which programs may test for.
func explain(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return fmt.Sprintf("%s (%s)", status.Convert(err).Message(), info.GetReason())
		}
	}
	return err.Error()
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// A client of moln whose stubs are generated from protos/: lists the hosts, creates a VM, waits until it runs, prints
// it, and terminates it. It needs nothing of moln but the contract, an address and a token.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { ErrorInfoSchema } from "./gen/error_info_pb.js";
import { HostState } from "./gen/moln/compute/v1/host_pb.js";
import { HostService } from "./gen/moln/compute/v1/host_service_pb.js";
import { VmState } from "./gen/moln/compute/v1/vm_pb.js";
import { VmService } from "./gen/moln/compute/v1/vm_service_pb.js";

/** Dials the cloud: by TLS where MOLN_CA_FILE names the certificate of its authority, else in clear (loopback). */
function connect(endpoint, tokenFile, caFile) {
  const token = readFileSync(tokenFile, "utf8").trim();
  const authorise = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  return createGrpcTransport({
    baseUrl: `${caFile ? "https" : "http"}://${endpoint}`,
    nodeOptions: caFile ? { ca: readFileSync(caFile) } : {},
    interceptors: [authorise],
  });
}

async function listHosts(hosts) {
  const reply = await hosts.listHosts({});
  for (const { id, spec, view } of reply.hosts) {
    const memory = `${view.memoryMibUsed} of ${view.memoryMibTotal} MiB used`;
    console.log(`host ${id} ${spec.name} ${HostState[view.state]}: ${view.vms} VMs, ${memory}`);
  }
}

/** Creates a VM, waits until it runs, prints it, and terminates it whatever happened before. */
async function runOneVm(vms) {
  // A repeated call with the same request id answers the first result: it is safe to retry.
  const created = await vms.createVm({
    name: "from-node",
    requestId: randomUUID(),
    template: { vcpus: 1, memoryMib: 128n, labels: { example: "node" } },
  });
  try {
    const { id, spec, view } = await wait(vms, created.id, VmState.RUNNING);
    console.log(`vm ${id} ${spec.name} ${VmState[view.state]} on ${view.host}, address ${view.ipv4}`);
  } finally {
    await terminate(vms, created.id);
  }
}

/** Ends a VM for good and returns when nothing of it is left. */
async function terminate(vms, id) {
  await vms.terminateVm({ id, isHard: true });
  try {
    await wait(vms, id, VmState.DONE);
  } catch (error) {
    // A VM that is gone already is not found.
    if (ConnectError.from(error).code !== Code.NotFound) throw error;
  }
  console.log(`vm ${id} is gone`);
}

function wait(vms, id, state) {
  return vms.waitVm({ id, state, timeout: { seconds: 60n } });
}

/** What went wrong; moln's errors carry a reason of a closed list, which programs may test for. */
function explain(error) {
  if (!(error instanceof ConnectError)) {
    return error.message;
  }
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason;
  return reason ? `${error.rawMessage} (${reason})` : error.message;
}

const setting = (name, otherwise) => process.env[name] || otherwise;

try {
  const tokenFile = setting("MOLN_TOKEN_FILE", "../../.moln/api/admin.token");
  const transport = connect(setting("MOLN_ENDPOINT", "127.0.0.1:2632"), tokenFile, process.env.MOLN_CA_FILE);
  await listHosts(createClient(HostService, transport));
  await runOneVm(createClient(VmService, transport));
} catch (error) {
  console.error(explain(error));
  process.exitCode = 1;
}

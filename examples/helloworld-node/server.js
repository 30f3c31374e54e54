// Greets by name, and counts.
'use strict';

const path = require('node:path');
const { Readable, pipeline } = require('node:stream');

const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { ReflectionService } = require('@grpc/reflection');

const definition = protoLoader.loadSync(path.join(__dirname, 'proto/helloworld.proto'), {
  defaults: true,
  longs: String,
});
const { helloworld } = grpc.loadPackageDefinition(definition);

const greeter = {
  Call(call, reply) {
    reply(null, { msg: `Hello ${call.request.name}` });
  },

  Stream(call) {
    const last = BigInt(call.request.count);
    function* answers() {
      for (let count = 1n; count <= last; count++) yield { count: String(count) };
    }
    call.on('cancelled', () => call.destroy());
    pipeline(Readable.from(answers()), call, () => {});
  },
};

const server = new grpc.Server();
server.addService(helloworld.Helloworld.service, greeter);
new ReflectionService(definition).addToServer(server);

const address = `127.0.0.1:${process.env.PORT || 0}`;
server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`helloworld listens on 127.0.0.1:${port}`);
});

process.on('SIGTERM', () => server.tryShutdown(() => process.exit(0)));

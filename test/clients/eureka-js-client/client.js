// A service that uses eureka-js-client in the ordinary way: it registers, renews, follows the registry, and leaves it on
// SIGTERM. What happens to it goes to stdout, one JSON object a line.
'use strict';

const { Eureka } = require('eureka-js-client');

const { REGISTRY_PORT, APP, INSTANCE, PEER, DELTA } = process.env;
const say = (event, rest) => console.log(JSON.stringify({ event, ...rest }));

// The client tells some of what it does to its logger only.
const told = (level) => (...words) => {
  const line = words.map(String).join(' ');
  console.error(level, line);
  if (line.includes('heartbeat FAILED, will retry')) say('failed');
  if (line.includes('retrieved delta')) say('delta');
};

const client = new Eureka({
  shouldUseDelta: DELTA === '1',
  logger: { debug: told('debug'), info: told('info'), warn: told('warn'), error: told('error') },
  instance: {
    instanceId: INSTANCE,
    app: APP,
    hostName: '127.0.0.1',
    ipAddr: '127.0.0.1',
    port: { $: 8089, '@enabled': 'true' },
    vipAddress: APP,
    dataCenterInfo: { '@class': 'com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo', name: 'MyOwn' },
    metadata: { colour: 'blue' },
  },
  eureka: {
    host: '127.0.0.1',
    port: REGISTRY_PORT,
    servicePath: '/eureka/apps/',
    heartbeatInterval: 200,
    registryFetchInterval: 200,
    maxRetries: 0, // of one request; the next heartbeat comes in any case
  },
});

let seen = '[]';
const look = () => {
  const ids = client.getInstancesByVipAddress(PEER).map((instance) => instance.instanceId).sort();
  if (JSON.stringify(ids) === seen) return;
  seen = JSON.stringify(ids);
  say('sees', { ids });
};

client.on('registered', () => say('registered'));
client.on('heartbeat', () => say('heartbeat'));
client.on('deregistered', () => say('deregistered'));
const looking = setInterval(look, 50);
client.start((err) => {
  if (err) throw err;
});
process.on('SIGTERM', () => {
  clearInterval(looking);
  client.stop((err) => {
    if (err) throw err;
  });
});

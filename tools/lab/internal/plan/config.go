package plan

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"konsul.dev/pkg/config"
)

// document is konsul.yaml: one file for every service of a datacenter. Where a datacenter has an
// address of its own, the services' default ports do, and most sections stay empty.
type document struct {
	Server         serverSection    `yaml:"server"`
	Endpoints      *endpoints       `yaml:"endpoints,omitempty"`
	Telemetry      telemetrySection `yaml:"telemetry"`
	CA             caSection        `yaml:"ca,omitempty"`
	Registry       registrySection  `yaml:"registry,omitempty"`
	Gateway        gatewaySection   `yaml:"gateway,omitempty"`
	WANGossip      gossipSection    `yaml:"wan_gossip,omitempty"`
	Replicator     listenSection    `yaml:"replicator,omitempty"`
	FailoverRouter routerSection    `yaml:"failover_router,omitempty"`
	Agent          agentSection     `yaml:"agent"`
}

type serverSection struct {
	Datacenter        string     `yaml:"datacenter"`
	PrimaryDatacenter string     `yaml:"primary_datacenter"`
	Node              string     `yaml:"node"`
	BindAddr          string     `yaml:"bind_addr"`
	DataDir           string     `yaml:"data_dir"`
	SecretFile        string     `yaml:"secret_file"`
	WAN               wanSection `yaml:"wan"`
}

type wanSection struct {
	Enabled       bool     `yaml:"enabled"`
	BindAddr      string   `yaml:"bind_addr"`
	AdvertiseAddr string   `yaml:"advertise_addr"`
	Members       []string `yaml:"members,omitempty"`
	Join          []string `yaml:"join,omitempty"`
}

type endpoints struct {
	Registry       []string `yaml:"registry"`
	CA             []string `yaml:"ca"`
	Gateway        []string `yaml:"gateway"`
	WANGossip      []string `yaml:"wan_gossip"`
	Replicator     []string `yaml:"replicator"`
	FailoverRouter []string `yaml:"failover_router"`
}

type telemetrySection struct {
	LogFormat    string `yaml:"log_format"`
	OTLPEndpoint string `yaml:"otlp_endpoint,omitempty"`
	OTLPInsecure bool   `yaml:"otlp_insecure,omitempty"`
}

type listenSection struct {
	Listen string `yaml:"listen,omitempty"`
}

type caSection struct {
	Listen        string `yaml:"listen,omitempty"`
	JoinTokenFile string `yaml:"join_token_file,omitempty"`
}

type registrySection struct {
	Listen                     string   `yaml:"listen,omitempty"`
	RaftListen                 string   `yaml:"raft_listen,omitempty"`
	GatewayAddresses           []string `yaml:"gateway_addresses,omitempty"`
	InitialManagementTokenFile string   `yaml:"initial_management_token_file,omitempty"`
}

type gatewaySection struct {
	Listen     string `yaml:"listen,omitempty"`
	HTTPListen string `yaml:"http_listen,omitempty"`
	WANAddress string `yaml:"wan_address,omitempty"`
}

type gossipSection struct {
	Listen           string   `yaml:"listen,omitempty"`
	GatewayAddresses []string `yaml:"gateway_addresses,omitempty"`
}

type routerSection struct {
	Listen      string `yaml:"listen,omitempty"`
	ProxyListen string `yaml:"proxy_listen,omitempty"`
}

type agentSection struct {
	Listen      string `yaml:"listen,omitempty"`
	ServicesDir string `yaml:"services_dir"`
}

// shift moves every port that is not the default.
func (doc *document) shift(dc Datacenter) {
	at := dc.Addr
	doc.Endpoints = &endpoints{
		Registry: []string{at(config.PortRegistry)}, CA: []string{at(config.PortCA)}, Gateway: []string{at(config.PortGateway)},
		WANGossip: []string{at(config.PortWANGossipGRPC)}, Replicator: []string{at(config.PortReplicator)},
		FailoverRouter: []string{at(config.PortFailoverRouter)},
	}
	gateways := []string{at(config.PortGateway)}
	doc.CA.Listen = at(config.PortCA)
	doc.Registry.Listen, doc.Registry.RaftListen = at(config.PortRegistry), at(config.PortRaft)
	doc.Registry.GatewayAddresses, doc.WANGossip.GatewayAddresses = gateways, gateways
	doc.WANGossip.Listen = at(config.PortWANGossipGRPC)
	doc.Gateway = gatewaySection{Listen: gateways[0], HTTPListen: at(config.PortHTTP), WANAddress: gateways[0]}
	doc.Replicator.Listen = at(config.PortReplicator)
	doc.FailoverRouter = routerSection{Listen: at(config.PortFailoverRouter), ProxyListen: at(config.PortProxy)}
	doc.Agent.Listen = at(config.PortAgent)
}

// Config returns the konsul.yaml of a datacenter.
func (l Layout) Config(dc Datacenter) ([]byte, error) {
	primary := l.Primary()
	doc := document{
		Server: serverSection{
			Datacenter: dc.Name, PrimaryDatacenter: primary.Name,
			Node: dc.Node(), BindAddr: dc.Host, DataDir: dc.DataDir(), SecretFile: dc.SecretFile(),
			WAN: wanSection{
				Enabled: true, BindAddr: dc.Addr(config.PortWANGossip), AdvertiseAddr: dc.Addr(config.PortWANGossip),
			},
		},
		Telemetry: telemetrySection{LogFormat: "text", OTLPEndpoint: l.OTLPEndpoint, OTLPInsecure: l.OTLPEndpoint != ""},
		Agent:     agentSection{ServicesDir: dc.ServicesDir()},
	}
	if dc.Primary {
		doc.Registry.InitialManagementTokenFile = dc.TokenFile()
		for _, other := range l.Secondaries() {
			doc.Server.WAN.Members = append(doc.Server.WAN.Members, other.Addr(config.PortWANGossip))
		}
	} else {
		doc.CA.JoinTokenFile = dc.JoinTokenFile()
		doc.Server.WAN.Join = []string{primary.Addr(config.PortWANGossip)}
	}
	if dc.offset != 0 {
		doc.shift(dc)
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write konsul.yaml of %s: %w", dc.Name, err)
	}
	return text, nil
}

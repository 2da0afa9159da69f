package wire

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/gopacket/gopacket/tcpassembly"
)

const loopback = "lo"

// Flow is one direction of a TCP connection.
type Flow struct {
	Source, Destination string // host:port
	Bytes               []byte
}

// Packet is a UDP datagram.
type Packet struct {
	Source, Destination string
	Bytes               []byte
}

// Capture records the traffic of some ports on the loopback device. Safe for concurrent use.
type Capture struct {
	handle *pcapgo.EthernetHandle
	ports  map[string]bool
	done   chan struct{}

	mu      sync.Mutex
	flows   []*flow
	packets []Packet
}

// Start captures until Stop whatever comes from or goes to one of the ports.
func Start(ports ...string) (*Capture, error) {
	handle, err := pcapgo.NewEthernetHandle(loopback)
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", loopback, err)
	}
	c := &Capture{handle: handle, ports: map[string]bool{}, done: make(chan struct{})}
	for _, port := range ports {
		c.ports[port] = true
	}
	go c.read()
	return c, nil
}

// Stop ends the capture.
func (c *Capture) Stop() {
	_ = c.handle.Close() // closing is how the reading loop learns that it is over
	<-c.done
}

// Flows returns a copy of what was captured over TCP for addresses that begin with network.
func (c *Capture) Flows(network string) []Flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	var flows []Flow
	for _, f := range c.flows {
		if f.whole && (strings.HasPrefix(f.Destination, network) || strings.HasPrefix(f.Source, network)) {
			flows = append(flows, Flow{Source: f.Source, Destination: f.Destination, Bytes: bytes.Clone(f.Bytes)})
		}
	}
	return flows
}

// Packets returns what was captured over UDP for destinations that begin with network.
func (c *Capture) Packets(network string) []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	var packets []Packet
	for _, p := range c.packets {
		if strings.HasPrefix(p.Destination, network) {
			packets = append(packets, p)
		}
	}
	return packets
}

func (c *Capture) read() {
	defer close(c.done)
	assembler := tcpassembly.NewAssembler(tcpassembly.NewStreamPool(c))
	for {
		data, info, err := c.handle.ReadPacketData()
		if err != nil {
			return
		}
		packet := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.NoCopy)
		if packet.NetworkLayer() == nil {
			continue
		}
		netFlow := packet.NetworkLayer().NetworkFlow()
		switch segment := packet.TransportLayer().(type) {
		case *layers.TCP:
			if c.wants(segment.TransportFlow()) {
				assembler.AssembleWithTimestamp(netFlow, segment, info.Timestamp)
				assembler.FlushOlderThan(info.Timestamp.Add(-time.Minute))
			}
		case *layers.UDP:
			if c.wants(segment.TransportFlow()) {
				c.keep(netFlow, segment)
			}
		}
	}
}

func (c *Capture) wants(ports gopacket.Flow) bool {
	return c.ports[ports.Src().String()] || c.ports[ports.Dst().String()]
}

func (c *Capture) keep(addresses gopacket.Flow, datagram *layers.UDP) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = append(c.packets, Packet{
		Source:      net.JoinHostPort(addresses.Src().String(), datagram.TransportFlow().Src().String()),
		Destination: net.JoinHostPort(addresses.Dst().String(), datagram.TransportFlow().Dst().String()),
		Bytes:       bytes.Clone(datagram.Payload),
	})
}

// New is called by the assembler for each direction of each connection.
func (c *Capture) New(addresses, ports gopacket.Flow) tcpassembly.Stream {
	f := &flow{capture: c, whole: true, Flow: Flow{
		Source:      net.JoinHostPort(addresses.Src().String(), ports.Src().String()),
		Destination: net.JoinHostPort(addresses.Dst().String(), ports.Dst().String()),
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flows = append(c.flows, f)
	return f
}

type flow struct {
	Flow

	capture *Capture
	// whole is false once bytes were missed, at the start or in between: record borders are lost
	// then.
	whole bool
}

// Reassembled receives the bytes in order.
func (f *flow) Reassembled(parts []tcpassembly.Reassembly) {
	f.capture.mu.Lock()
	defer f.capture.mu.Unlock()
	for _, part := range parts {
		if part.Skip != 0 || len(f.Bytes) == 0 && !part.Start && len(part.Bytes) > 0 && part.Skip < 0 {
			f.whole = false
		}
		f.Bytes = append(f.Bytes, part.Bytes...)
	}
}

// ReassemblyComplete is called when the direction is closed.
func (f *flow) ReassemblyComplete() {}

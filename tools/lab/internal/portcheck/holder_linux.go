package portcheck

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// holder names the process that has the address, as far as this user may see it.
func holder(need Need) string {
	inode := socketInode(need)
	if inode == "" {
		return ""
	}
	// A process's descriptors are readable by its owner only: no match means somebody else's
	// process.
	paths, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, path := range paths {
		target, err := os.Readlink(path)
		if err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(path, "/")[2]
		comm, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		if err != nil {
			return "pid " + pid
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), pid)
	}
	return ""
}

// socketInode finds the socket bound to the address, or to its port on every address.
func socketInode(need Need) string {
	host, portText, err := net.SplitHostPort(need.Address)
	if err != nil {
		return ""
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return ""
	}
	want := net.ParseIP(host).To4()
	for _, table := range []string{need.Network, need.Network + "6"} {
		if inode := scan(filepath.Join("/proc/net", table), need.Network, want, uint16(port)); inode != "" {
			return inode
		}
	}
	return ""
}

func scan(path, network string, want net.IP, port uint16) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || (network == "tcp" && fields[3] != tcpListen) {
			continue
		}
		address, portHex, _ := strings.Cut(fields[1], ":")
		got, err := strconv.ParseUint(portHex, 16, 16)
		if err != nil || uint16(got) != port {
			continue
		}
		if covers(address, want) {
			return fields[9]
		}
	}
	return ""
}

// covers reports whether a socket bound to address, hex in host byte order per word, receives what
// is sent to want.
func covers(address string, want net.IP) bool {
	raw, err := hex.DecodeString(address)
	if err != nil {
		return false
	}
	if strings.Trim(address, "0") == "" {
		return true
	}
	if len(raw) != net.IPv4len || want == nil {
		return false
	}
	return raw[3] == want[0] && raw[2] == want[1] && raw[1] == want[2] && raw[0] == want[3]
}

package main

// Hand-rolled protobuf wire scanning of the xDS discovery messages, so that the
// client spends as little CPU as possible per byte received.

import (
	"fmt"
	"hash/maphash"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	typeCDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	typeEDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	typeLDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
	typeRDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

	typeVHDS = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
)

var seed = maphash.MakeSeed()

// field iterates over the fields of one message; val is the payload for
// length-delimited fields, num the varint value otherwise.
func fields(b []byte, fn func(n protowire.Number, t protowire.Type, val []byte, num uint64) bool) error {
	for len(b) > 0 {
		n, t, l := protowire.ConsumeTag(b)
		if l < 0 {
			return protowire.ParseError(l)
		}
		b = b[l:]
		switch t {
		case protowire.BytesType:
			v, l := protowire.ConsumeBytes(b)
			if l < 0 {
				return protowire.ParseError(l)
			}
			b = b[l:]
			if !fn(n, t, v, 0) {
				return nil
			}
		case protowire.VarintType:
			v, l := protowire.ConsumeVarint(b)
			if l < 0 {
				return protowire.ParseError(l)
			}
			b = b[l:]
			if !fn(n, t, nil, v) {
				return nil
			}
		default:
			l := protowire.ConsumeFieldValue(n, t, b)
			if l < 0 {
				return protowire.ParseError(l)
			}
			b = b[l:]
		}
	}
	return nil
}

type resource struct {
	name    string
	body    []byte
	version []byte
}

type response struct {
	version, nonce, typeURL string
	resources               []resource
	removed                 []string
}

func anyValue(b []byte) (val []byte) {
	fields(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
		if n == 2 {
			val = v
		}
		return true
	})
	return
}

// nameOf: Cluster.name, Listener.name, RouteConfiguration.name and
// ClusterLoadAssignment.cluster_name are all field 1.
func nameOf(b []byte) (s string) {
	fields(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
		if n == 1 {
			s = intern(v)
			return false
		}
		return true
	})
	return
}

func parseSotw(b []byte, r *response) error {
	return fields(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
		switch n {
		case 1:
			r.version = string(v)
		case 2:
			a := anyValue(v)
			r.resources = append(r.resources, resource{name: nameOf(a), body: a})
		case 4:
			r.typeURL = intern(v)
		case 5:
			r.nonce = string(v)
		}
		return true
	})
}

func parseDelta(b []byte, r *response) error {
	return fields(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
		switch n {
		case 1:
			r.version = string(v)
		case 2:
			var res resource
			fields(v, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
				switch n {
				case 1:
					res.version = v
				case 2:
					res.body = anyValue(v)
				case 3:
					res.name = intern(v)
				}
				return true
			})
			r.resources = append(r.resources, res)
		case 4:
			r.typeURL = intern(v)
		case 5:
			r.nonce = string(v)
		case 6:
			r.removed = append(r.removed, intern(v))
		}
		return true
	})
}

// isEDS: Cluster.type (field 2) == EDS (3). Returns eds service_name override if set.
func isEDS(b []byte) (bool, string) {
	eds, svc := false, ""
	fields(b, func(n protowire.Number, t protowire.Type, v []byte, u uint64) bool {
		if n == 2 && t == protowire.VarintType {
			eds = u == 3
		}
		if n == 3 { // eds_cluster_config
			fields(v, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
				if n == 2 {
					svc = intern(v)
				}
				return true
			})
		}
		return true
	})
	return eds, svc
}

// rdsNames: Listener.filter_chains(3)/default_filter_chain(25) -> filters(3) ->
// typed_config(4) Any -> if HCM: rds(3).route_config_name(2)
func rdsNames(b []byte, out map[string]bool) {
	fields(b, func(n protowire.Number, t protowire.Type, fc []byte, _ uint64) bool {
		if n != 3 && n != 25 {
			return true
		}
		fields(fc, func(n protowire.Number, t protowire.Type, f []byte, _ uint64) bool {
			if n != 3 || t != protowire.BytesType {
				return true
			}
			fields(f, func(n protowire.Number, t protowire.Type, a []byte, _ uint64) bool {
				if n != 4 {
					return true
				}
				var hcm []byte
				ok := false
				fields(a, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
					if n == 1 {
						ok = string(v) == "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
					} else if n == 2 {
						hcm = v
					}
					return true
				})
				if ok {
					fields(hcm, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
						if n == 3 && t == protowire.BytesType {
							fields(v, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
								if n == 2 {
									out[intern(v)] = true
								}
								return true
							})
						}
						return true
					})
				}
				return true
			})
			return true
		})
		return true
	})
}

func appStr(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, n, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func appBytes(b []byte, n protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, n, protowire.BytesType)
	return protowire.AppendBytes(b, v)
}

// envoy.config.core.v3.Node
func nodeBytes(id, cluster string, meta *structpb.Struct) []byte {
	mb, err := proto.Marshal(meta)
	if err != nil {
		panic(err)
	}
	var b []byte
	b = appStr(b, 1, id)
	b = appStr(b, 2, cluster)
	b = appBytes(b, 3, mb)
	b = appStr(b, 6, "envoy")
	var ver []byte // BuildVersion{version: SemanticVersion{1,36,0}}
	sv := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	sv = protowire.AppendVarint(protowire.AppendTag(sv, 2, protowire.VarintType), 36)
	ver = appBytes(ver, 1, sv)
	b = appBytes(b, 8, ver)
	return b
}

func sotwReq(node []byte, typeURL, version, nonce string, names []string) []byte {
	var b []byte
	b = appStr(b, 1, version)
	b = appBytes(b, 2, node)
	for _, n := range names {
		b = appStr(b, 3, n)
	}
	b = appStr(b, 4, typeURL)
	b = appStr(b, 5, nonce)
	return b
}

func deltaReq(node []byte, typeURL, nonce string, sub, unsub []string) []byte {
	var b []byte
	b = appBytes(b, 1, node)
	b = appStr(b, 2, typeURL)
	for _, n := range sub {
		b = appStr(b, 3, n)
	}
	for _, n := range unsub {
		b = appStr(b, 4, n)
	}
	b = appStr(b, 6, nonce)
	return b
}

func h64(b []byte) uint64 { return maphash.Bytes(seed, b) }

// hasVHDS: RouteConfiguration.vhds (field 9) is set.
func hasVHDS(b []byte) (found bool) {
	fields(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
		found = found || n == 9
		return !found
	})
	return
}

// child returns the first field n of a message.
func child(b []byte, n protowire.Number) (found []byte) {
	fields(b, func(m protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
		if m == n && t == protowire.BytesType {
			found = v
			return false
		}
		return true
	})
	return
}

// weightsOf: of the first route with weighted clusters, in a RouteConfiguration (3) or a VirtualHost (4), as "90/10".
func weightsOf(t int, b []byte) string {
	hosts := [][]byte{b}
	if t == 3 {
		hosts = nil
		fields(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
			if n == 2 {
				hosts = append(hosts, v)
			}
			return true
		})
	} else if t != 4 {
		return ""
	}
	for _, host := range hosts {
		weighted := child(child(child(host, 3), 2), 3)
		text := ""
		fields(weighted, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) bool {
			if n == 1 {
				fields(child(v, 2), func(n protowire.Number, t protowire.Type, _ []byte, u uint64) bool {
					text += fmt.Sprintf("/%d", u)
					return true
				})
			}
			return true
		})
		if text != "" {
			return text[1:]
		}
	}
	return ""
}
